#define _GNU_SOURCE
#include "clinux.h"

#include <linux/fiemap.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>

int clinux_next_extent(int fd, uint64_t offset, struct clinux_extent *extent) {
  union {
    struct fiemap map;
    char room[sizeof(struct fiemap) + sizeof(struct fiemap_extent)];
  } request;
  memset(&request, 0, sizeof request);
  request.map.fm_start = offset;
  request.map.fm_length = FIEMAP_MAX_OFFSET - offset;
  // What lies in the page cache only has written nothing yet, in the list's eyes.
  request.map.fm_flags = FIEMAP_FLAG_SYNC;
  request.map.fm_extent_count = 1;
  if (ioctl(fd, FS_IOC_FIEMAP, &request.map) != 0) return -1;
  if (request.map.fm_mapped_extents == 0) return 0;
  const struct fiemap_extent *found = request.map.fm_extents;
  extent->offset = found->fe_logical;
  extent->length = found->fe_length;
  extent->is_unwritten = (found->fe_flags & FIEMAP_EXTENT_UNWRITTEN) != 0;
  return 1;
}
