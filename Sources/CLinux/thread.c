#define _GNU_SOURCE
#include "clinux.h"

#include <pthread.h>
#include <stdio.h>

void clinux_name_thread(const char *name) {
  char shown[16];
  snprintf(shown, sizeof shown, "%s", name);
  pthread_setname_np(pthread_self(), shown);
}
