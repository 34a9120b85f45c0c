// What of OpenSSL Swift cannot import: macros, and callbacks that need one.
#ifndef CTLS_H
#define CTLS_H

#include <openssl/ssl.h>

/// A new context for one side: TLS 1.2 or 1.3, no renegotiation, no resumption. NULL if OpenSSL cannot.
SSL_CTX *ctls_context(int is_server);
/// Takes the private key in the file `path`. 1 if it could; `asked` becomes 1 if the key turned out to
/// be protected by a password, which nobody is asked for.
int ctls_use_key(SSL_CTX *context, const char *path, int *asked);
/// Transfers over a socket that never wait, whatever O_NONBLOCK says, and raise no SIGPIPE. NULL if
/// OpenSSL cannot.
BIO_METHOD *ctls_socket_method(void);
/// A new connection over the socket `fd`, which stays the caller's. NULL if OpenSSL cannot.
SSL *ctls_connection(SSL_CTX *context, const BIO_METHOD *method, int fd, int is_server);
/// The other side's certificate must have this name, or address; a client also says that it wants it.
int ctls_expect(SSL *connection, const char *name, int is_server);
/// Whether OpenSSL's error is an alert that the other side sent.
int ctls_is_alert(unsigned long error);

#endif
