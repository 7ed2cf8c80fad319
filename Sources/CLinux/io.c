#define _GNU_SOURCE
#include "clinux.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/sendfile.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

ssize_t clinux_pread_now(int fd, void *buffer, size_t length, off_t offset) {
  struct iovec part = {.iov_base = buffer, .iov_len = length};
  return preadv2(fd, &part, 1, offset, RWF_NOWAIT);
}

ssize_t clinux_send_file(int socket, int fd, off_t offset, size_t length) {
  // sendfile takes no flags: whether it waits is the socket's property.
  int flags = fcntl(socket, F_GETFL);
  if (flags < 0 || fcntl(socket, F_SETFL, flags | O_NONBLOCK) != 0) return -1;
  ssize_t count = sendfile(socket, fd, &offset, length);
  int error = errno;
  fcntl(socket, F_SETFL, flags);
  errno = error;
  return count;
}

ssize_t clinux_cached_bytes(int fd, off_t offset, size_t length) {
#ifndef __NR_cachestat
#define __NR_cachestat 451
#endif
  struct {
    uint64_t offset, length;
  } range = {(uint64_t)offset, length};
  struct {
    uint64_t cached, dirty, writeback, evicted, recently_evicted;
  } found;
  if (syscall(__NR_cachestat, fd, &range, &found, 0) != 0) return -1;
  return (ssize_t)(found.cached * (uint64_t)sysconf(_SC_PAGESIZE));
}

int clinux_allocate(int fd, off_t offset, off_t length) { return fallocate(fd, 0, offset, length); }

int clinux_punch_hole(int fd, off_t offset, off_t length) {
  return fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length);
}

int clinux_zero_range(int fd, off_t offset, off_t length) {
  return fallocate(fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, offset, length);
}

off_t clinux_seek_data(int fd, off_t offset) { return lseek(fd, offset, SEEK_DATA); }

off_t clinux_seek_hole(int fd, off_t offset) { return lseek(fd, offset, SEEK_HOLE); }
