#pragma once
#include <stdint.h>

// SQLite's own view of its files, for those who replay crashes: what it does to databases beneath one folder is told
// once it has succeeded, in order.

enum csqlite_call {
  CSQLITE_CREATE,
  CSQLITE_WRITE,
  CSQLITE_TRUNCATE,
  CSQLITE_SYNC_STARTED,
  CSQLITE_SYNCED,
  CSQLITE_UNLINK,
  CSQLITE_FOLDER_SYNCED,
};

/// `bytes` are what a write wrote, and `place` where; of a truncation `place` is the new length.
typedef void (*csqlite_tell)(
  void *context, enum csqlite_call call, const char *path, uint64_t place, const void *bytes, uint64_t count);

/// Tells of databases beneath `folder` that are opened from now on. Every other database of the process is as it was.
/// There can be one such folder at a time.
///
/// Returns SQLite's code.
int csqlite_trace(const char *folder, csqlite_tell tell, void *context);

/// Ends it; databases of the folder have to be closed by now.
void csqlite_trace_end(void);
