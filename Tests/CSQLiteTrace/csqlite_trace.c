#include "csqlite_trace.h"

#include <sqlite3.h>
#include <string.h>
#include <unistd.h>

// A VFS over the system's own (https://sqlite.org/vfs.html), and the default while a folder is watched. Locks and the
// index of the log in shared memory are passed on untold: both end with the process, and SQLite makes that index anew.

static sqlite3_vfs *below;
static sqlite3_vfs vfs;
static char watched[1024];
static csqlite_tell told;
static void *told_context;

struct file {
  sqlite3_file base;
  const char *path;
  // SQLite's layer for Unix syncs the folder with the first sync of a log or journal that may be new.
  int syncs_folder;
  sqlite3_file *real;
};

static sqlite3_file *real(sqlite3_file *file) { return ((struct file *)file)->real; }

static void tell(sqlite3_file *file, enum csqlite_call call, uint64_t place, const void *bytes, uint64_t count) {
  told(told_context, call, ((struct file *)file)->path, place, bytes, count);
}

static int close_file(sqlite3_file *file) { return real(file)->pMethods->xClose(real(file)); }

static int read_file(sqlite3_file *file, void *bytes, int count, sqlite3_int64 offset) {
  return real(file)->pMethods->xRead(real(file), bytes, count, offset);
}

static int write_file(sqlite3_file *file, const void *bytes, int count, sqlite3_int64 offset) {
  int code = real(file)->pMethods->xWrite(real(file), bytes, count, offset);
  if (code == SQLITE_OK) tell(file, CSQLITE_WRITE, offset, bytes, count);
  return code;
}

static int truncate_file(sqlite3_file *file, sqlite3_int64 size) {
  int code = real(file)->pMethods->xTruncate(real(file), size);
  if (code == SQLITE_OK) tell(file, CSQLITE_TRUNCATE, size, 0, 0);
  return code;
}

static int sync_file(sqlite3_file *file, int flags) {
  struct file *own = (struct file *)file;
  tell(file, CSQLITE_SYNC_STARTED, 0, 0, 0);
  int code = real(file)->pMethods->xSync(real(file), flags);
  if (code != SQLITE_OK) return code;
  tell(file, CSQLITE_SYNCED, 0, 0, 0);
  if (own->syncs_folder) tell(file, CSQLITE_FOLDER_SYNCED, 0, 0, 0);
  own->syncs_folder = 0;
  return code;
}

static int file_size(sqlite3_file *file, sqlite3_int64 *size) {
  return real(file)->pMethods->xFileSize(real(file), size);
}
static int lock_file(sqlite3_file *file, int level) { return real(file)->pMethods->xLock(real(file), level); }
static int unlock_file(sqlite3_file *file, int level) { return real(file)->pMethods->xUnlock(real(file), level); }
static int check_lock(sqlite3_file *file, int *is_reserved) {
  return real(file)->pMethods->xCheckReservedLock(real(file), is_reserved);
}
static int control(sqlite3_file *file, int operation, void *argument) {
  return real(file)->pMethods->xFileControl(real(file), operation, argument);
}
static int sector_size(sqlite3_file *file) { return real(file)->pMethods->xSectorSize(real(file)); }
static int characteristics(sqlite3_file *file) {
  return real(file)->pMethods->xDeviceCharacteristics(real(file));
}
static int map_shared(sqlite3_file *file, int page, int size, int extend, void volatile **place) {
  return real(file)->pMethods->xShmMap(real(file), page, size, extend, place);
}
static int lock_shared(sqlite3_file *file, int offset, int count, int flags) {
  return real(file)->pMethods->xShmLock(real(file), offset, count, flags);
}
static void order_shared(sqlite3_file *file) { real(file)->pMethods->xShmBarrier(real(file)); }
static int unmap_shared(sqlite3_file *file, int removes) {
  return real(file)->pMethods->xShmUnmap(real(file), removes);
}

// Version 2: without the calls by which a file would be mapped and written unseen.
static const sqlite3_io_methods methods = {
  2,           close_file, read_file,  write_file,   truncate_file, sync_file,       file_size,  lock_file,   unlock_file,
  check_lock,  control,    sector_size, characteristics, map_shared, lock_shared, order_shared, unmap_shared, 0, 0,
};

static int is_watched(const char *path) {
  size_t count = strlen(watched);
  return path && count && strncmp(path, watched, count) == 0 && path[count] == '/';
}

static int open_file(sqlite3_vfs *self, const char *path, sqlite3_file *file, int flags, int *opened) {
  (void)self;
  if (!is_watched(path)) return below->xOpen(below, path, file, flags, opened);
  struct file *own = (struct file *)file;
  memset(own, 0, sizeof *own);
  own->real = (sqlite3_file *)(own + 1);
  own->path = path;
  int is_new = access(path, F_OK) != 0;
  int code = below->xOpen(below, path, own->real, flags, opened);
  // Without methods nobody closes it.
  if (own->real->pMethods) own->base.pMethods = &methods;
  if (code != SQLITE_OK) return code;
  own->syncs_folder = (flags & SQLITE_OPEN_CREATE)
    && (flags & (SQLITE_OPEN_WAL | SQLITE_OPEN_MAIN_JOURNAL | SQLITE_OPEN_SUPER_JOURNAL));
  if (is_new) tell(file, CSQLITE_CREATE, 0, 0, 0);
  return code;
}

static int delete_file(sqlite3_vfs *self, const char *path, int syncs_folder) {
  (void)self;
  int code = below->xDelete(below, path, syncs_folder);
  if (code == SQLITE_OK && is_watched(path)) {
    told(told_context, CSQLITE_UNLINK, path, 0, 0, 0);
    if (syncs_folder) told(told_context, CSQLITE_FOLDER_SYNCED, path, 0, 0, 0);
  }
  return code;
}

int csqlite_trace(const char *folder, csqlite_tell tell, void *context) {
  if (strlen(folder) >= sizeof watched || watched[0]) return SQLITE_MISUSE;
  if (!below) {
    below = sqlite3_vfs_find(0);
    if (!below) return SQLITE_ERROR;
    // Its other functions look at what is in the structure, and never at whose it is.
    vfs = *below;
    vfs.zName = "ploopd-trace";
    vfs.pNext = 0;
    vfs.szOsFile = sizeof(struct file) + below->szOsFile;
    vfs.xOpen = open_file;
    vfs.xDelete = delete_file;
  }
  told = tell;
  told_context = context;
  strcpy(watched, folder);
  return sqlite3_vfs_register(&vfs, 1);
}

void csqlite_trace_end(void) {
  sqlite3_vfs_register(below, 1);
  watched[0] = 0;
}
