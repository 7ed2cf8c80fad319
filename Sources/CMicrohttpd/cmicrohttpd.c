#include "cmicrohttpd.h"

struct MHD_Daemon *cmicrohttpd_start(int listening_socket, MHD_AccessHandlerCallback handler,
                                     MHD_RequestCompletedCallback completed, void *context,
                                     unsigned int connection_limit, unsigned int timeout_seconds) {
  return MHD_start_daemon(
      MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_POLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ITC, 0,
      NULL, NULL, handler, context, MHD_OPTION_LISTEN_SOCKET, (MHD_socket)listening_socket,
      MHD_OPTION_NOTIFY_COMPLETED, completed, context, MHD_OPTION_CONNECTION_LIMIT,
      connection_limit, MHD_OPTION_CONNECTION_TIMEOUT, timeout_seconds,
      MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_END);
}
