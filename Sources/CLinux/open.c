#define _GNU_SOURCE
#include "clinux.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <linux/openat2.h>
#include <sys/syscall.h>
#include <unistd.h>

int clinux_open(const char *path, int flags, mode_t mode) {
  return open(path, flags | O_CLOEXEC, mode);
}

int clinux_open_beneath(int directory, const char *path, uint64_t flags, mode_t mode) {
  struct open_how how = {
      // What is only found takes no other flags.
      .flags = flags | O_CLOEXEC | (flags & O_PATH ? 0 : O_NOCTTY),
      .mode = mode,
      .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS,
  };
  return (int)syscall(SYS_openat2, directory, path, &how, sizeof how);
}

int clinux_rename_unused(int directory, const char *name, const char *new_name) {
  return (int)syscall(SYS_renameat2, directory, name, directory, new_name, RENAME_NOREPLACE);
}
