// What tests need of the kernel and the product does not.
#ifndef CTESTSUPPORT_H
#define CTESTSUPPORT_H

/// Makes this process run as user and group `id`, without capabilities, for good. 0, or -errno.
int test_become_user(unsigned id);

#endif
