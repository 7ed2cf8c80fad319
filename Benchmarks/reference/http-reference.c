// The least that an HTTP server on libmicrohttpd can be: the same bytes for every GET, with the headers that ploopd
// sends, a thread and poll as ploopd has them. `http-reference FILE` writes the port that it listens on.
#include <arpa/inet.h>
#include <microhttpd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct MHD_Response *response;

static enum MHD_Result answer(void *context, struct MHD_Connection *connection, const char *url,
                              const char *method, const char *version, const char *upload,
                              size_t *upload_size, void **slot) {
  static int seen;
  (void)context, (void)url, (void)version, (void)upload, (void)upload_size;
  if (strcmp(method, "GET") != 0) return MHD_NO;
  // The header has come; the library asks again for the reply.
  if (*slot == NULL) {
    *slot = &seen;
    return MHD_YES;
  }
  return MHD_queue_response(connection, MHD_HTTP_OK, response);
}

int main(int count, char **words) {
  FILE *file = count == 2 ? fopen(words[1], "rb") : NULL;
  if (file == NULL) {
    fprintf(stderr, "usage: http-reference FILE\n");
    return 2;
  }
  size_t size = 0, room = 1 << 16;
  char *bytes = malloc(room);
  for (size_t more; bytes != NULL && (more = fread(bytes + size, 1, room - size, file)) > 0;) {
    size += more;
    if (size == room) bytes = realloc(bytes, room *= 2);
  }
  if (bytes == NULL) return 1;
  response = MHD_create_response_from_buffer(size, bytes, MHD_RESPMEM_PERSISTENT);
  if (response == NULL) return 1;
  MHD_add_response_header(response, "Content-Type", "application/json");
  MHD_add_response_header(response, "ETag", "\"1\"");
  MHD_add_response_header(response, "X-Request-Id", "r1");
  MHD_add_response_header(response, "Cache-Control", "no-store");
  MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  struct MHD_Daemon *daemon =
      MHD_start_daemon(MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_POLL, 0, NULL, NULL, answer, NULL,
                       MHD_OPTION_SOCK_ADDR, &address, MHD_OPTION_END);
  const union MHD_DaemonInfo *info =
      daemon == NULL ? NULL : MHD_get_daemon_info(daemon, MHD_DAEMON_INFO_BIND_PORT);
  if (info == NULL) return 1;
  printf("%u\n", info->port);
  fflush(stdout);
  for (;;) pause();
}
