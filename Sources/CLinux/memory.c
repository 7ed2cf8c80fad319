#include "clinux.h"

#include <malloc.h>

size_t clinux_unused_memory(void) { return mallinfo2().fordblks; }

void clinux_return_memory(void) { malloc_trim(0); }
