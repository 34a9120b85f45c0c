#include "ctls.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdint.h>
#include <sys/socket.h>

static int put(BIO *bio, const char *bytes, int count) {
  int fd = (int)(intptr_t)BIO_get_data(bio);
  ssize_t moved = send(fd, bytes, (size_t)count, MSG_DONTWAIT | MSG_NOSIGNAL);
  BIO_clear_retry_flags(bio);
  if (moved < 0 && (errno == EAGAIN || errno == EINTR)) BIO_set_retry_write(bio);
  return (int)moved;
}

static int get(BIO *bio, char *bytes, int count) {
  int fd = (int)(intptr_t)BIO_get_data(bio);
  ssize_t moved = recv(fd, bytes, (size_t)count, MSG_DONTWAIT);
  BIO_clear_retry_flags(bio);
  if (moved < 0 && (errno == EAGAIN || errno == EINTR)) BIO_set_retry_read(bio);
  return (int)moved;
}

static long control(BIO *bio, int command, long number, void *pointer) {
  (void)bio, (void)number, (void)pointer;
  return command == BIO_CTRL_FLUSH;
}

BIO_METHOD *ctls_socket_method(void) {
  BIO_METHOD *method = BIO_meth_new(BIO_TYPE_SOURCE_SINK, "socket");
  if (!method) return NULL;
  BIO_meth_set_write(method, put);
  BIO_meth_set_read(method, get);
  BIO_meth_set_ctrl(method, control);
  return method;
}

SSL_CTX *ctls_context(int is_server) {
  SSL_CTX *context = SSL_CTX_new(is_server ? TLS_server_method() : TLS_client_method());
  if (!context) return NULL;
  SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
  // Both sides' protocol has an end of its own: without a farewell of TLS's nothing is missed.
  SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_NO_TICKET |
                                   SSL_OP_IGNORE_UNEXPECTED_EOF);
  SSL_CTX_set_num_tickets(context, 0);
  SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  // Without it every record takes two system calls.
  SSL_CTX_set_read_ahead(context, 1);
  SSL_CTX_set_default_read_buffer_len(context, 128 << 10);
  SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
  return context;
}

static int no_password(char *buffer, int size, int writing, void *asked) {
  (void)buffer, (void)size, (void)writing;
  *(int *)asked = 1;
  return -1;
}

int ctls_use_key(SSL_CTX *context, const char *path, int *asked) {
  *asked = 0;
  SSL_CTX_set_default_passwd_cb(context, no_password);
  SSL_CTX_set_default_passwd_cb_userdata(context, asked);
  int result = SSL_CTX_use_PrivateKey_file(context, path, SSL_FILETYPE_PEM);
  SSL_CTX_set_default_passwd_cb(context, NULL);
  SSL_CTX_set_default_passwd_cb_userdata(context, NULL);
  return result;
}

SSL *ctls_connection(SSL_CTX *context, const BIO_METHOD *method, int fd, int is_server) {
  SSL *connection = SSL_new(context);
  BIO *bio = BIO_new(method);
  if (!connection || !bio) {
    SSL_free(connection);
    BIO_free(bio);
    return NULL;
  }
  BIO_set_data(bio, (void *)(intptr_t)fd);
  BIO_set_init(bio, 1);
  SSL_set_bio(connection, bio, bio);
  if (is_server) {
    SSL_set_accept_state(connection);
  } else {
    SSL_set_connect_state(connection);
  }
  return connection;
}

int ctls_expect(SSL *connection, const char *name, int is_server) {
  X509_VERIFY_PARAM *wanted = SSL_get0_param(connection);
  if (X509_VERIFY_PARAM_set1_ip_asc(wanted, name) == 1) return 1;
  X509_VERIFY_PARAM_set_hostflags(wanted, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
  if (X509_VERIFY_PARAM_set1_host(wanted, name, 0) != 1) return 0;
  return is_server || SSL_set_tlsext_host_name(connection, name) == 1;
}

int ctls_is_alert(unsigned long error) {
  return ERR_GET_LIB(error) == ERR_LIB_SSL && ERR_GET_REASON(error) > SSL_AD_REASON_OFFSET &&
         ERR_GET_REASON(error) < SSL_AD_REASON_OFFSET + 256;
}
