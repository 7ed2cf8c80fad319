#include "clinux.h"

#include <pthread.h>
#include <string.h>

#if defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

// RFC 3720, 12.1: the polynomial 0x1EDC6F41, its bits reversed.
static const uint32_t polynomial = 0x82F63B78;
static uint32_t table[256];
static pthread_once_t table_made = PTHREAD_ONCE_INIT;

static void make_table(void) {
  for (uint32_t byte = 0; byte < 256; byte++) {
    uint32_t rest = byte;
    for (int bit = 0; bit < 8; bit++) rest = rest & 1 ? rest >> 1 ^ polynomial : rest >> 1;
    table[byte] = rest;
  }
}

uint32_t clinux_crc32c_plain(uint32_t sum, const void *bytes, size_t count) {
  pthread_once(&table_made, make_table);
  const unsigned char *next = bytes;
  sum = ~sum;
  while (count-- > 0) sum = table[(sum ^ *next++) & 0xFF] ^ sum >> 8;
  return ~sum;
}

#if defined(__x86_64__)
#define WORD_STEP(sum, word) __builtin_ia32_crc32di((sum), (word))
#define BYTE_STEP(sum, byte) __builtin_ia32_crc32qi((uint32_t)(sum), (byte))
__attribute__((target("sse4.2")))
#elif defined(__aarch64__)
#define WORD_STEP(sum, word) __builtin_arm_crc32cd((uint32_t)(sum), (word))
#define BYTE_STEP(sum, byte) __builtin_arm_crc32cb((uint32_t)(sum), (byte))
__attribute__((target("crc")))
#endif
#if defined(WORD_STEP)
static uint32_t
crc32c_fast(uint32_t sum, const void *bytes, size_t count) {
  const unsigned char *next = bytes;
  uint64_t rest = (uint32_t)~sum;
  for (; count >= 8; count -= 8, next += 8) {
    uint64_t word;
    memcpy(&word, next, 8);
    rest = WORD_STEP(rest, word);
  }
  while (count-- > 0) rest = BYTE_STEP(rest, *next++);
  return ~(uint32_t)rest;
}
#endif

uint32_t clinux_crc32c(uint32_t sum, const void *bytes, size_t count) {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("sse4.2")) return crc32c_fast(sum, bytes, count);
#elif defined(__aarch64__)
  if (getauxval(AT_HWCAP) & HWCAP_CRC32) return crc32c_fast(sum, bytes, count);
#endif
  return clinux_crc32c_plain(sum, bytes, count);
}
