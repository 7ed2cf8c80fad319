// What the Glibc module cannot give Swift: variadic calls, calls without a glibc wrapper, headers and
// constants behind _GNU_SOURCE, and an instruction. No policy: every function does one thing of the system's, mostly
// one call. Each returns what that returns and leaves its error in errno.
#ifndef PLOOPD_CLINUX_H
#define PLOOPD_CLINUX_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

// open.c: man 2 openat2, man 2 open
// Columns of a terminal; 0 for none.
int clinux_terminal_columns(int fd);

int clinux_open(const char *path, int flags, mode_t mode);
// Opens `path` beneath `directory`; no link of any kind is followed out of it or at all.
int clinux_open_beneath(int directory, const char *path, uint64_t flags, mode_t mode);
// Within one directory; EEXIST where something has the new name (man 2 renameat2, RENAME_NOREPLACE).
int clinux_rename_unused(int directory, const char *name, const char *new_name);

// io.c: man 2 preadv2, man 2 fallocate
// Reads only what the page cache holds now: EAGAIN when it would block, EOPNOTSUPP when the file system cannot say.
ssize_t clinux_pread_now(int fd, void *buffer, size_t length, off_t offset);
int clinux_allocate(int fd, off_t offset, off_t length);
int clinux_punch_hole(int fd, off_t offset, off_t length);
int clinux_zero_range(int fd, off_t offset, off_t length);
// Copies within the kernel, sharing blocks where the file system can (man 2 copy_file_range).
ssize_t clinux_copy_range(int from, off_t at, int to, off_t offset, size_t length);
// Shares blocks; all of the range or an error (man 2 ioctl_ficlonerange).
int clinux_clone_range(int from, off_t at, int to, off_t offset, off_t length);
// Whether it is known that a copy within this file system takes as much room again: 0 where blocks may be
// shared, or nobody knows.
int clinux_copies_take_room(int fd);
// Starts writing dirty pages to the disk; it promises nothing.
int clinux_begin_writeback(int fd, off_t offset, off_t length);
// How many pages of the range the page cache holds (man 2 cachestat, Linux 6.5); -1 where the kernel cannot say.
int64_t clinux_cached_pages(int fd, off_t offset, off_t length);
off_t clinux_seek_data(int fd, off_t offset);
off_t clinux_seek_hole(int fd, off_t offset);

// memory.c: man 3 mallinfo2, man 3 malloc_trim
size_t clinux_unused_memory(void);
void clinux_return_memory(void);

// ring.c: man 7 io_uring. One thread at a time uses a ring; only its bell is anybody's.
struct clinux_ring {
  int fd;
  uint32_t capacity;
  uint32_t sq_mask;
  uint32_t cq_mask;
  uint32_t *sq_head;
  uint32_t *sq_tail;
  uint32_t *sq_array;
  uint32_t *cq_head;
  uint32_t *cq_tail;
  void *cqes;
  void *rings;
  void *entries;
  size_t rings_bytes;
  size_t entries_bytes;
};
// `bell` (an eventfd) is rung when something is complete. -1 where the kernel or its policy has no rings.
int clinux_ring_open(struct clinux_ring *ring, unsigned entries, int bell);
void clinux_ring_close(struct clinux_ring *ring);
// Queues a read without a system call; -1 when the queue is full.
int clinux_ring_read(struct clinux_ring *ring, int fd, void *buffer, unsigned length, uint64_t offset, uint64_t tag);
// How many queued reads the kernel has not taken yet: it takes fewer than asked when it is short of memory.
int clinux_ring_untaken(struct clinux_ring *ring);
// Submits what is queued and waits until at least `wait` completions are there.
int clinux_ring_enter(struct clinux_ring *ring, unsigned wait);
// Takes one completion: 1 when there was one, 0 when not.
int clinux_ring_next(struct clinux_ring *ring, uint64_t *tag, int32_t *result);

// extents.c: the kernel's Documentation/filesystems/fiemap.rst
struct clinux_extent {
  uint64_t offset;
  uint64_t length;
  // Space is reserved, but nothing was ever written there.
  int is_unwritten;
};
// The extent that holds `offset` or is the next behind it: 1 when there is one, 0 when not, -1 on error. What
// was written but not synced goes to the disk first.
int clinux_next_extent(int fd, uint64_t offset, struct clinux_extent *extent);

// crc32c.c: the CRC of RFC 3720, by the processor's own instruction where it has one. `sum` is that of the
// bytes before, 0 at the beginning.
uint32_t clinux_crc32c(uint32_t sum, const void *bytes, size_t count);
// The same without the instruction.
uint32_t clinux_crc32c_plain(uint32_t sum, const void *bytes, size_t count);

// lock.c: man 2 fcntl (open file description locks). `write` asks for an exclusive lock.
int clinux_ofd_lock(int fd, off_t offset, off_t length, int write);
int clinux_ofd_unlock(int fd, off_t offset, off_t length);
// 1 when somebody else holds a lock that conflicts with an exclusive one on the range, 0 when not, -1 on error.
int clinux_ofd_conflict(int fd, off_t offset, off_t length);

// socket.c: man 7 unix, man 7 socket, man 7 tcp
struct clinux_peer {
  int32_t pid;
  uint32_t uid;
  uint32_t gid;
};
// -1 with ENOTSUP unless the socket is a Unix one: SO_PEERCRED "succeeds" on TCP with nonsense.
int clinux_peer_credentials(int fd, struct clinux_peer *peer);
int clinux_accept(int fd);
// Sends from the page cache without copying (man 2 sendfile).
ssize_t clinux_send_file(int socket, int fd, off_t offset, size_t length);
// What the other end of a Unix socket has not taken yet, in bytes of kernel memory; -1 on error.
int clinux_unread(int socket);
// man 7 vsock: how a host and its virtual machines find each other.
struct clinux_vsock {
  unsigned machine;
  unsigned port;
};
// A socket that is bound to a port of this machine, a free one for 0; -1 on error.
int clinux_vsock(unsigned port);
// -1 with ENOTSUP for a socket of another kind.
int clinux_vsock_bound(int fd, struct clinux_vsock *found);
int clinux_vsock_peer(int fd, struct clinux_vsock *found);
// This machine's number for others; the host's where the kernel does not say.
unsigned clinux_vsock_own(void);
// man 2 eventfd: a counter that any thread may raise and poll can see.
int clinux_bell(void);
void clinux_bell_ring(int fd);
void clinux_bell_silence(int fd);

// thread.c: man 3 pthread_setname_np; longer names are cut to what the kernel shows.
void clinux_name_thread(const char *name);
// How long the calling thread may run before others get their turn (man 2 sched_setattr, Linux 6.12); where the
// kernel does not know it, nothing changes.
void clinux_shorten_turns(uint64_t nanoseconds);

#endif
