#define _GNU_SOURCE
#include "clinux.h"

#include <errno.h>
#include <linux/io_uring.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

// Newer than the headers of some distributions; kernels that do not know them say EINVAL.
#ifndef IORING_SETUP_SINGLE_ISSUER
#define IORING_SETUP_SINGLE_ISSUER (1U << 12)
#endif
#ifndef IORING_SETUP_DEFER_TASKRUN
#define IORING_SETUP_DEFER_TASKRUN (1U << 13)
#endif

static int setup(unsigned entries, unsigned flags, struct io_uring_params *parameters) {
  memset(parameters, 0, sizeof *parameters);
  parameters->flags = flags;
  return (int)syscall(__NR_io_uring_setup, entries, parameters);
}

int clinux_ring_open(struct clinux_ring *ring, unsigned entries, int bell) {
  struct io_uring_params p;
  memset(ring, 0, sizeof *ring);
  ring->fd = setup(entries, IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN, &p);
  if (ring->fd < 0 && errno == EINVAL) ring->fd = setup(entries, 0, &p);
  if (ring->fd < 0) return -1;
  // Without these the kernel is too old for what follows (5.4), or loses completions (5.5).
  unsigned needed = IORING_FEAT_SINGLE_MMAP | IORING_FEAT_NODROP;
  if ((p.features & needed) != needed) {
    close(ring->fd);
    errno = ENOSYS;
    return -1;
  }
  size_t submitted = p.sq_off.array + p.sq_entries * sizeof(unsigned);
  size_t completed = p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe);
  ring->rings_bytes = submitted > completed ? submitted : completed;
  ring->entries_bytes = p.sq_entries * sizeof(struct io_uring_sqe);
  int protection = PROT_READ | PROT_WRITE;
  ring->rings = mmap(NULL, ring->rings_bytes, protection, MAP_SHARED | MAP_POPULATE, ring->fd, IORING_OFF_SQ_RING);
  ring->entries = mmap(NULL, ring->entries_bytes, protection, MAP_SHARED | MAP_POPULATE, ring->fd, IORING_OFF_SQES);
  if (ring->rings == MAP_FAILED || ring->entries == MAP_FAILED ||
      syscall(__NR_io_uring_register, ring->fd, IORING_REGISTER_EVENTFD, &bell, 1) != 0) {
    int error = errno;
    clinux_ring_close(ring);
    errno = error;
    return -1;
  }
  char *base = ring->rings;
  ring->capacity = p.sq_entries;
  ring->sq_head = (uint32_t *)(base + p.sq_off.head);
  ring->sq_tail = (uint32_t *)(base + p.sq_off.tail);
  ring->sq_array = (uint32_t *)(base + p.sq_off.array);
  ring->sq_mask = *(uint32_t *)(base + p.sq_off.ring_mask);
  ring->cq_head = (uint32_t *)(base + p.cq_off.head);
  ring->cq_tail = (uint32_t *)(base + p.cq_off.tail);
  ring->cq_mask = *(uint32_t *)(base + p.cq_off.ring_mask);
  ring->cqes = base + p.cq_off.cqes;
  return 0;
}

void clinux_ring_close(struct clinux_ring *ring) {
  if (ring->rings && ring->rings != MAP_FAILED) munmap(ring->rings, ring->rings_bytes);
  if (ring->entries && ring->entries != MAP_FAILED) munmap(ring->entries, ring->entries_bytes);
  close(ring->fd);
}

int clinux_ring_read(struct clinux_ring *ring, int fd, void *buffer, unsigned length, uint64_t offset, uint64_t tag) {
  uint32_t tail = *ring->sq_tail;
  if (tail - __atomic_load_n(ring->sq_head, __ATOMIC_ACQUIRE) >= ring->capacity) return -1;
  uint32_t slot = tail & ring->sq_mask;
  struct io_uring_sqe *entry = (struct io_uring_sqe *)ring->entries + slot;
  memset(entry, 0, sizeof *entry);
  entry->opcode = IORING_OP_READ;
  entry->fd = fd;
  entry->addr = (uintptr_t)buffer;
  entry->len = length;
  entry->off = offset;
  entry->user_data = tag;
  ring->sq_array[slot] = slot;
  __atomic_store_n(ring->sq_tail, tail + 1, __ATOMIC_RELEASE);
  return 0;
}

int clinux_ring_untaken(struct clinux_ring *ring) {
  return (int)(*ring->sq_tail - __atomic_load_n(ring->sq_head, __ATOMIC_ACQUIRE));
}

int clinux_ring_enter(struct clinux_ring *ring, unsigned wait) {
  unsigned waiting = (unsigned)clinux_ring_untaken(ring);
  // Getting events also runs what the kernel has put off until this thread asks (DEFER_TASKRUN).
  return (int)syscall(__NR_io_uring_enter, ring->fd, waiting, wait, IORING_ENTER_GETEVENTS, NULL, 0);
}

int clinux_ring_next(struct clinux_ring *ring, uint64_t *tag, int32_t *result) {
  uint32_t head = *ring->cq_head;
  if (head == __atomic_load_n(ring->cq_tail, __ATOMIC_ACQUIRE)) return 0;
  struct io_uring_cqe *entry = (struct io_uring_cqe *)ring->cqes + (head & ring->cq_mask);
  *tag = entry->user_data;
  *result = entry->res;
  __atomic_store_n(ring->cq_head, head + 1, __ATOMIC_RELEASE);
  return 1;
}
