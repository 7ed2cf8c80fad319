#include "cmicrohttpd.h"

struct MHD_Daemon *cmicrohttpd_start(int listening_socket,
                                     const struct cmicrohttpd_callbacks *callbacks,
                                     const struct cmicrohttpd_limits *limits,
                                     const struct cmicrohttpd_tls *tls) {
  void *context = callbacks->context;
  unsigned int flags = MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_POLL | MHD_ALLOW_SUSPEND_RESUME |
                       MHD_USE_ITC;
  // The rest of the list is what only some daemons have.
  struct MHD_OptionItem more[6] = {{MHD_OPTION_END, 0, NULL}};
  int count = 0;
  // A pool of one is none.
  if (limits->threads > 1)
    more[count++] = (struct MHD_OptionItem){MHD_OPTION_THREAD_POOL_SIZE, (intptr_t)limits->threads, NULL};
  if (tls->certificate != NULL) {
    flags |= MHD_USE_TLS;
    more[count++] = (struct MHD_OptionItem){MHD_OPTION_HTTPS_MEM_CERT, 0, (void *)tls->certificate};
    more[count++] = (struct MHD_OptionItem){MHD_OPTION_HTTPS_MEM_KEY, 0, (void *)tls->key};
    more[count++] = (struct MHD_OptionItem){
        MHD_OPTION_HTTPS_PRIORITIES, 0, "SECURE128:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2:-RSA"};
    if (tls->authorities != NULL)
      more[count++] =
          (struct MHD_OptionItem){MHD_OPTION_HTTPS_MEM_TRUST, 0, (void *)tls->authorities};
  }
  more[count] = (struct MHD_OptionItem){MHD_OPTION_END, 0, NULL};
  return MHD_start_daemon(
      flags, 0, NULL, NULL, callbacks->request, context, MHD_OPTION_LISTEN_SOCKET,
      (MHD_socket)listening_socket, MHD_OPTION_URI_LOG_CALLBACK, callbacks->target, context,
      MHD_OPTION_NOTIFY_COMPLETED, callbacks->completed, context, MHD_OPTION_NOTIFY_CONNECTION,
      callbacks->connection, context, MHD_OPTION_CONNECTION_LIMIT, limits->connections,
      MHD_OPTION_PER_IP_CONNECTION_LIMIT, limits->connections_per_address,
      MHD_OPTION_CONNECTION_TIMEOUT, limits->idle_seconds, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
      limits->head_bytes, MHD_OPTION_STRICT_FOR_CLIENT, 1,
      MHD_OPTION_ARRAY, more, MHD_OPTION_END);
}

unsigned int cmicrohttpd_connections(struct MHD_Daemon *daemon) {
  const union MHD_DaemonInfo *info =
      MHD_get_daemon_info(daemon, MHD_DAEMON_INFO_CURRENT_CONNECTIONS);
  return info == NULL ? 0 : info->num_connections;
}

int cmicrohttpd_descriptor(struct MHD_Connection *connection) {
  const union MHD_ConnectionInfo *info =
      MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
  return info == NULL ? -1 : info->connect_fd;
}

void *cmicrohttpd_slot(struct MHD_Connection *connection) {
  const union MHD_ConnectionInfo *info =
      MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
  return info == NULL ? NULL : info->socket_context;
}

void cmicrohttpd_head_only(struct MHD_Response *response) {
  MHD_set_response_options(response, MHD_RF_HTTP_1_0_COMPATIBLE_STRICT, MHD_RO_END);
}

int cmicrohttpd_has_tls(void) { return MHD_is_feature_supported(MHD_FEATURE_TLS) == MHD_YES; }

struct gnutls_session_int *cmicrohttpd_session(struct MHD_Connection *connection) {
  const union MHD_ConnectionInfo *info =
      MHD_get_connection_info(connection, MHD_CONNECTION_INFO_GNUTLS_SESSION);
  return info == NULL ? NULL : info->tls_session;
}
