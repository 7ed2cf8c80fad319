#define _GNU_SOURCE
#include "clinux.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <unistd.h>

ssize_t clinux_pread_now(int fd, void *buffer, size_t length, off_t offset) {
  struct iovec part = {.iov_base = buffer, .iov_len = length};
  return preadv2(fd, &part, 1, offset, RWF_NOWAIT);
}

int clinux_allocate(int fd, off_t offset, off_t length) { return fallocate(fd, 0, offset, length); }

int clinux_punch_hole(int fd, off_t offset, off_t length) {
  return fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length);
}

int clinux_zero_range(int fd, off_t offset, off_t length) {
  return fallocate(fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, offset, length);
}

ssize_t clinux_copy_range(int from, off_t at, int to, off_t offset, size_t length) {
  return copy_file_range(from, &at, to, &offset, length, 0);
}

int clinux_clone_range(int from, off_t at, int to, off_t offset, off_t length) {
  struct file_clone_range range = {.src_fd = from,
                                   .src_offset = (uint64_t)at,
                                   .src_length = (uint64_t)length,
                                   .dest_offset = (uint64_t)offset};
  return ioctl(to, FICLONERANGE, &range);
}

int clinux_copies_take_room(int fd) {
  struct statfs status;
  if (fstatfs(fd, &status) != 0) return 0;
  return status.f_type == EXT4_SUPER_MAGIC || status.f_type == TMPFS_MAGIC;
}

int clinux_begin_writeback(int fd, off_t offset, off_t length) {
  return sync_file_range(fd, offset, length, SYNC_FILE_RANGE_WRITE);
}

// Not in the headers of every system that has it: include/uapi/linux/mman.h.
#ifndef SYS_cachestat
#define SYS_cachestat 451
#endif
int64_t clinux_cached_pages(int fd, off_t offset, off_t length) {
  struct {
    uint64_t offset, length;
  } range = {.offset = (uint64_t)offset, .length = (uint64_t)length};
  struct {
    uint64_t cached, dirty, writeback, evicted, recently_evicted;
  } found;
  return syscall(SYS_cachestat, fd, &range, &found, 0) == 0 ? (int64_t)found.cached : -1;
}

off_t clinux_seek_data(int fd, off_t offset) { return lseek(fd, offset, SEEK_DATA); }

off_t clinux_seek_hole(int fd, off_t offset) { return lseek(fd, offset, SEEK_HOLE); }
