#define _GNU_SOURCE
#include "clinux.h"

#include <pthread.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

void clinux_name_thread(const char *name) {
  char shown[16];
  snprintf(shown, sizeof shown, "%s", name);
  pthread_setname_np(pthread_self(), shown);
}

// Whoever set another policy for the service meant it (SCHED_FLAG_KEEP_POLICY of <linux/sched.h>).
enum { KEEP_POLICY = 0x08 };

void clinux_shorten_turns(uint64_t nanoseconds) {
  struct {
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime, deadline, period;
  } attributes = {.size = sizeof attributes, .flags = KEEP_POLICY, .runtime = nanoseconds};
  attributes.nice = getpriority(PRIO_PROCESS, 0);
  (void)syscall(__NR_sched_setattr, 0, &attributes, 0);
}
