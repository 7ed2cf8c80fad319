// The least that copy-on-write by sharing blocks can be: each cluster of 1 MiB of a file, in a scattered order, is shared with
// a new file (FICLONERANGE) and 4 KiB of it are written over, by so many threads.
// `clone-reference SOURCE TARGET CLUSTERS THREADS` writes clusters per second, the median and the 99th percentile of
// what one takes, in microseconds.
#include <fcntl.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

enum { cluster = 1 << 20, block = 4096 };
static int source, target;
static size_t clusters, factor;
static atomic_size_t next;
static double *taken;

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * 1e6 + time.tv_nsec / 1e3;
}

static void *copy(void *unused) {
  (void)unused;
  char bytes[block];
  memset(bytes, 2, block);
  for (size_t number; (number = atomic_fetch_add(&next, 1)) < clusters;) {
    double begun = now();
    struct file_clone_range range = {
        .src_fd = source,
        .src_offset = number * factor % clusters * cluster,
        .src_length = cluster,
        .dest_offset = number * cluster};
    if (ioctl(target, FICLONERANGE, &range) != 0 ||
        pwrite(target, bytes, block, range.dest_offset) != block) {
      perror("clone-reference");
      exit(1);
    }
    taken[number] = now() - begun;
  }
  return NULL;
}

static int ascending(const void *one, const void *other) {
  double a = *(const double *)one, b = *(const double *)other;
  return (a > b) - (a < b);
}

static size_t divisor(size_t a, size_t b) { return b == 0 ? a : divisor(b, a % b); }

int main(int count, char **words) {
  enum { most = 64 };
  pthread_t threads[most];
  int wanted = count == 5 ? atoi(words[4]) : 0;
  if (wanted < 1 || wanted > most || (clusters = strtoul(words[3], NULL, 10)) == 0) {
    fprintf(stderr, "usage: clone-reference SOURCE TARGET CLUSTERS THREADS\n");
    return 2;
  }
  source = open(words[1], O_RDONLY);
  target = open(words[2], O_RDWR | O_CREAT | O_EXCL, 0600);
  taken = calloc(clusters, sizeof *taken);
  if (source < 0 || target < 0 || taken == NULL) {
    perror("clone-reference");
    return 1;
  }
  // Multiples of a factor without a common divisor visit each cluster once.
  for (factor = (size_t)(clusters * 0.618) | 1; divisor(factor, clusters) != 1;) factor++;
  double begun = now();
  for (int i = 0; i < wanted; i++)
    if (pthread_create(&threads[i], NULL, copy, NULL) != 0) return 1;
  for (int i = 0; i < wanted; i++) pthread_join(threads[i], NULL);
  double seconds = (now() - begun) / 1e6;
  qsort(taken, clusters, sizeof *taken, ascending);
  printf("%f %f %f\n", clusters / seconds, taken[clusters / 2], taken[clusters * 99 / 100]);
  return 0;
}
