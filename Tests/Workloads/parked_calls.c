// Every blocking call that a stop might disturb: see parked.h.
#include "parked.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/futex.h>
#include <linux/io_uring.h>
#include <mqueue.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SHORT_MS = 30 };
static const struct timespec short_time = {0, SHORT_MS * 1000000L};

static struct timespec short_time_from_now(clockid_t clock) {
  struct timespec now;
  clock_gettime(clock, &now);
  now.tv_nsec += short_time.tv_nsec;
  if (now.tv_nsec >= 1000000000) {
    now.tv_sec++;
    now.tv_nsec -= 1000000000;
  }
  return now;
}

// MARK: What wakes

static void prepare_pipe(struct parked *self) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC)) die("pipe");
  self->read_end = ends[0];
  self->write_end = ends[1];
}
static void prepare_sockets(struct parked *self) {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends)) die("socketpair");
  self->read_end = ends[0];
  self->write_end = ends[1];
}
static void write_byte(struct parked *self) {
  if (write(self->write_end, "x", 1) != 1) die("write");
}
static long drained(struct parked *self, long value) {
  char byte;
  if (value > 0 && read(self->read_end, &byte, 1) != 1) anomaly("nothing to drain");
  return value;
}
static void send_wake(struct parked *self) { pthread_kill(self->thread, WAKE_SIGNAL); }
static void send_awaited(struct parked *self) { pthread_kill(self->thread, AWAITED_SIGNAL); }

// MARK: Sleeping

static long wait_nanosleep(struct parked *self) {
  (void)self;
  return nanosleep(&short_time, NULL);
}
static long wait_absolute(struct parked *self) {
  (void)self;
  struct timespec until = short_time_from_now(CLOCK_MONOTONIC);
  errno = clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
  return errno ? -1 : 0;
}
static long wait_pause(struct parked *self) {
  (void)self;
  return pause();
}
static long wait_sigsuspend(struct parked *self) {
  (void)self;
  sigset_t mask;
  sigemptyset(&mask);
  sigaddset(&mask, AWAITED_SIGNAL);
  return sigsuspend(&mask);
}
static long wait_sigwaitinfo(struct parked *self) {
  (void)self;
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, AWAITED_SIGNAL);
  return sigwaitinfo(&set, NULL);
}
static long wait_sigtimedwait(struct parked *self) {
  (void)self;
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, AWAITED_SIGNAL);
  return sigtimedwait(&set, NULL, &short_time);
}

// MARK: Waiting for descriptors

static long poll_it(struct parked *self, int milliseconds) {
  struct pollfd entry = {self->read_end, POLLIN, 0};
  return drained(self, poll(&entry, 1, milliseconds));
}
static long wait_poll(struct parked *self) { return poll_it(self, -1); }
static long wait_poll_timed(struct parked *self) { return poll_it(self, SHORT_MS); }
static long wait_ppoll(struct parked *self) {
  struct pollfd entry = {self->read_end, POLLIN, 0};
  return drained(self, ppoll(&entry, 1, NULL, NULL));
}
static long wait_ppoll_timed(struct parked *self) {
  struct pollfd entry = {self->read_end, POLLIN, 0};
  return drained(self, ppoll(&entry, 1, &short_time, NULL));
}
static long select_it(struct parked *self, struct timeval *time) {
  fd_set set;
  FD_ZERO(&set);
  FD_SET(self->read_end, &set);
  return drained(self, select(self->read_end + 1, &set, NULL, NULL, time));
}
static long wait_select(struct parked *self) { return select_it(self, NULL); }
static long wait_select_timed(struct parked *self) {
  return select_it(self, &(struct timeval){0, SHORT_MS * 1000});
}
static long wait_pselect_timed(struct parked *self) {
  fd_set set;
  FD_ZERO(&set);
  FD_SET(self->read_end, &set);
  return drained(self, pselect(self->read_end + 1, &set, NULL, NULL, &short_time, NULL));
}
static void prepare_epoll(struct parked *self) {
  prepare_pipe(self);
  self->object = epoll_create1(EPOLL_CLOEXEC);
  struct epoll_event event = {.events = EPOLLIN};
  if (epoll_ctl(self->object, EPOLL_CTL_ADD, self->read_end, &event)) die("epoll");
}
static long epoll_it(struct parked *self, int milliseconds) {
  struct epoll_event event;
  return drained(self, epoll_wait(self->object, &event, 1, milliseconds));
}
static long wait_epoll(struct parked *self) { return epoll_it(self, -1); }
static long wait_epoll_timed(struct parked *self) { return epoll_it(self, SHORT_MS); }

// MARK: Futexes

static long wait_futex(struct parked *self) {
  unsigned before = (unsigned)atomic_load(&self->returns);
  for (;;) {
    long value = syscall(SYS_futex, &self->futex, FUTEX_WAIT_PRIVATE, before, NULL, NULL, 0);
    // EAGAIN: woken before it slept. A stray wake-up is allowed by futex(2): look again.
    if (value < 0 && errno != EAGAIN) return value;
    if (atomic_load(&self->futex) != before) return 0;
  }
}
static void wake_futex(struct parked *self) {
  atomic_fetch_add(&self->futex, 1);
  syscall(SYS_futex, &self->futex, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}
static long wait_futex_timed(struct parked *self) {
  return syscall(SYS_futex, &self->futex, FUTEX_WAIT_PRIVATE, 0, &short_time, NULL, 0);
}
static long wait_futex_absolute(struct parked *self) {
  struct timespec until = short_time_from_now(CLOCK_MONOTONIC);
  return syscall(SYS_futex, &self->futex, FUTEX_WAIT_BITSET_PRIVATE, 0, &until, NULL,
                 FUTEX_BITSET_MATCH_ANY);
}

// MARK: Reading and writing

static long wait_read(struct parked *self) {
  char byte;
  return read(self->read_end, &byte, 1);
}
static void prepare_eventfd(struct parked *self) {
  self->read_end = self->write_end = eventfd(0, EFD_CLOEXEC);
  if (self->read_end < 0) die("eventfd");
}
static long wait_counter(struct parked *self) {
  uint64_t value;
  long n = read(self->read_end, &value, sizeof value);
  return n;
}
static void wake_eventfd(struct parked *self) {
  uint64_t one = 1;
  if (write(self->write_end, &one, sizeof one) != sizeof one) die("eventfd");
}
static void prepare_timerfd(struct parked *self) {
  self->read_end = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
  if (self->read_end < 0) die("timerfd");
}
static long wait_timerfd(struct parked *self) {
  struct itimerspec once = {.it_value = short_time};
  if (timerfd_settime(self->read_end, 0, &once, NULL)) die("timerfd_settime");
  return wait_counter(self);
}
static void prepare_inotify(struct parked *self) {
  snprintf(self->path, sizeof self->path, "/tmp/workload-%d-%p", getpid(), (void *)self);
  int file = open(self->path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  self->read_end = inotify_init1(IN_CLOEXEC);
  if (file < 0 || inotify_add_watch(self->read_end, self->path, IN_MODIFY) < 0) die("inotify");
  unlink(self->path);
  self->write_end = file;
}
static long wait_inotify(struct parked *self) {
  char events[256];
  return read(self->read_end, events, sizeof events) > 0 ? 1 : -1;
}
static void prepare_signalfd(struct parked *self) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, AWAITED_SIGNAL);
  self->read_end = signalfd(-1, &set, SFD_CLOEXEC);
  if (self->read_end < 0) die("signalfd");
}
static long wait_signalfd(struct parked *self) {
  struct signalfd_siginfo info;
  return read(self->read_end, &info, sizeof info) > 0 ? 1 : -1;
}
static void prepare_full_pipe(struct parked *self) {
  prepare_pipe(self);
  fcntl(self->write_end, F_SETPIPE_SZ, 4096);
  fcntl(self->write_end, F_SETFL, O_NONBLOCK);
  char block[4096] = {0};
  while (write(self->write_end, block, sizeof block) > 0) {
  }
  fcntl(self->write_end, F_SETFL, 0);
}
static long wait_write(struct parked *self) {
  char block[4096] = {0};
  return write(self->write_end, block, sizeof block);
}
static void read_block(struct parked *self) {
  char block[4096];
  if (read(self->read_end, block, sizeof block) != sizeof block) die("read");
}

// MARK: Sockets

static long wait_recv(struct parked *self) {
  char byte;
  return recv(self->read_end, &byte, 1, 0);
}
static void prepare_timed_sockets(struct parked *self) {
  prepare_sockets(self);
  struct timeval time = {0, SHORT_MS * 1000};
  setsockopt(self->read_end, SOL_SOCKET, SO_RCVTIMEO, &time, sizeof time);
}
static void prepare_slow_sockets(struct parked *self) {
  prepare_sockets(self);
  struct timeval time = {1000, 0};  // never reached, but the kernel does not restart such a call
  setsockopt(self->read_end, SOL_SOCKET, SO_RCVTIMEO, &time, sizeof time);
}
static long wait_recvmsg(struct parked *self) {
  char byte;
  struct iovec part = {&byte, 1};
  struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
  return recvmsg(self->read_end, &message, 0);
}
static void prepare_listener(struct parked *self) {
  // Autobind: an abstract name of the kernel's choice.
  struct sockaddr_un name = {.sun_family = AF_UNIX};
  socklen_t length = sizeof name;
  self->object = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (bind(self->object, (void *)&name, sizeof name.sun_family) || listen(self->object, 8) ||
      getsockname(self->object, (void *)&name, &length))
    die("listen");
  snprintf(self->path, sizeof self->path, "%.6s", name.sun_path + 1);
}
static long wait_accept(struct parked *self) {
  int connection = accept4(self->object, NULL, NULL, SOCK_CLOEXEC);
  if (connection < 0) return -1;
  close(connection);
  return 1;
}
static void connect_once(struct parked *self) {
  struct sockaddr_un name = {.sun_family = AF_UNIX};
  size_t length = strlen(self->path);
  memcpy(name.sun_path + 1, self->path, length);
  int client = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (connect(client, (void *)&name, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + length)))
    die("connect");
  close(client);
}

// MARK: Children

static void fork_child(struct parked *self) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC)) die("pipe");
  fflush(NULL);
  int child = fork();
  if (child < 0) die("fork");
  if (child == 0) {
    // It ends when it is told to, or with its parent.
    char byte;
    close(ends[1]);
    while (read(ends[0], &byte, 1) < 0 && errno == EINTR) {
    }
    _exit(3);
  }
  close(ends[0]);
  if (self->write_end > 0) {
    dup3(ends[1], self->write_end, O_CLOEXEC);  // the same number again
    close(ends[1]);
  } else {
    self->write_end = ends[1];
  }
  self->child = child;
}
static long wait_wait4(struct parked *self) {
  int status;
  int child = waitpid(self->child, &status, 0);
  if (child < 0) return -1;
  if (child != self->child || status != 3 << 8) anomaly("wait4: status %x", status);
  fork_child(self);
  return 1;
}
static long wait_waitid(struct parked *self) {
  siginfo_t info;
  if (waitid(P_PID, (id_t)self->child, &info, WEXITED) < 0) return -1;
  if (info.si_pid != self->child || info.si_status != 3) anomaly("waitid: %d", info.si_status);
  fork_child(self);
  return 1;
}

// MARK: System V, POSIX queues, locks, asynchronous I/O

static void prepare_semaphore(struct parked *self) {
  self->object = semget(IPC_PRIVATE, 1, 0600);
  if (self->object < 0) die("semget");
}
static long wait_semop(struct parked *self) {
  struct sembuf take = {0, -1, 0};
  return semop(self->object, &take, 1);
}
static void give_semaphore(struct parked *self) {
  struct sembuf give = {0, 1, 0};
  if (semop(self->object, &give, 1)) die("semop");
}
static long wait_semtimedop(struct parked *self) {
  struct sembuf take = {0, -1, 0};
  return semtimedop(self->object, &take, 1, &short_time);
}
static void prepare_messages(struct parked *self) {
  self->object = msgget(IPC_PRIVATE, 0600);
  if (self->object < 0) die("msgget");
}
struct message {
  long type;
  char byte;
};
static long wait_msgrcv(struct parked *self) {
  struct message message;
  return msgrcv(self->object, &message, 1, 0, 0);
}
static void send_message(struct parked *self) {
  struct message message = {1, 'x'};
  if (msgsnd(self->object, &message, 1, 0)) die("msgsnd");
}
static void prepare_queue(struct parked *self) {
  struct mq_attr attributes = {.mq_maxmsg = 1, .mq_msgsize = 8};
  snprintf(self->path, sizeof self->path, "/workload-%d-%p", getpid(), (void *)self);
  self->object = mq_open(self->path, O_RDWR | O_CREAT | O_CLOEXEC, 0600, &attributes);
  if (self->object < 0) die("mq_open");
  mq_unlink(self->path);
}
static long wait_mq(struct parked *self) {
  char bytes[8];
  struct timespec until = short_time_from_now(CLOCK_REALTIME);
  return mq_timedreceive(self->object, bytes, sizeof bytes, NULL, &until);
}
static void open_lock(struct parked *self) {
  snprintf(self->path, sizeof self->path, "/tmp/workload-%d-%p", getpid(), (void *)self);
  self->read_end = open(self->path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  self->write_end = open(self->path, O_RDWR | O_CLOEXEC);
  if (self->read_end < 0 || self->write_end < 0) die("%s", self->path);
  unlink(self->path);
}
static void prepare_flock(struct parked *self) {
  open_lock(self);
  if (flock(self->write_end, LOCK_EX)) die("flock");
}
static long wait_flock(struct parked *self) {
  long value = flock(self->read_end, LOCK_EX);
  if (value == 0) {
    flock(self->read_end, LOCK_UN);
    // Held again by the other description before the next wait.
    while (flock(self->write_end, LOCK_EX | LOCK_NB)) {
    }
  }
  return value;
}
static void drop_flock(struct parked *self) { flock(self->write_end, LOCK_UN); }
static struct flock whole_file(short type) {
  return (struct flock){.l_type = type, .l_whence = SEEK_SET};
}
static void prepare_ofd_lock(struct parked *self) {
  open_lock(self);
  struct flock lock = whole_file(F_WRLCK);
  if (fcntl(self->write_end, F_OFD_SETLK, &lock)) die("F_OFD_SETLK");
}
static long wait_lock(struct parked *self, int command) {
  struct flock lock = whole_file(F_WRLCK), unlock = whole_file(F_UNLCK);
  long value = fcntl(self->read_end, command, &lock);
  if (value == 0) {
    fcntl(self->read_end, F_SETLK, &unlock);
    fcntl(self->read_end, F_OFD_SETLK, &unlock);
    lock = whole_file(F_WRLCK);
    while (fcntl(self->write_end, F_OFD_SETLK, &lock)) {
    }
  }
  return value;
}
static long wait_setlkw(struct parked *self) { return wait_lock(self, F_SETLKW); }
static long wait_ofd_setlkw(struct parked *self) { return wait_lock(self, F_OFD_SETLKW); }
static void drop_ofd_lock(struct parked *self) {
  struct flock unlock = whole_file(F_UNLCK);
  fcntl(self->write_end, F_OFD_SETLK, &unlock);
}
static void prepare_uring(struct parked *self) {
  struct io_uring_params parameters = {0};
  self->object = (int)syscall(SYS_io_uring_setup, 4, &parameters);
  if (self->object < 0) die("io_uring_setup");
}
static long wait_uring(struct parked *self) {
  return syscall(SYS_io_uring_enter, self->object, 0, 1, IORING_ENTER_GETEVENTS, NULL, 0);
}
static void prepare_aio(struct parked *self) {
  if (syscall(SYS_io_setup, 4, &self->context)) die("io_setup");
}
static long wait_getevents(struct parked *self) {
  struct io_event event;
  return syscall(SYS_io_getevents, self->context, 1, 1, &event, NULL);
}
static long wait_getevents_timed(struct parked *self) {
  struct io_event event;
  return syscall(SYS_io_getevents, self->context, 1, 1, &event, &short_time);
}

const struct parked_call parked_calls[] = {
    {"nanosleep", SHORT_MS, 0, 0, NULL, wait_nanosleep, NULL},
    {"clock_nanosleep_abs", SHORT_MS, 0, 0, NULL, wait_absolute, NULL},
    {"poll", 0, 1, 0, prepare_pipe, wait_poll, write_byte},
    {"poll_timed", SHORT_MS, 0, 0, prepare_pipe, wait_poll_timed, NULL},
    {"ppoll", 0, 1, 0, prepare_pipe, wait_ppoll, write_byte},
    {"ppoll_timed", SHORT_MS, 0, 0, prepare_pipe, wait_ppoll_timed, NULL},
    {"select", 0, 1, 0, prepare_pipe, wait_select, write_byte},
    {"select_timed", SHORT_MS, 0, 0, prepare_pipe, wait_select_timed, NULL},
    {"pselect_timed", SHORT_MS, 0, 0, prepare_pipe, wait_pselect_timed, NULL},
    {"epoll", 0, 1, 0, prepare_epoll, wait_epoll, write_byte},
    {"epoll_timed", SHORT_MS, 0, 0, prepare_epoll, wait_epoll_timed, NULL},
    {"futex", 0, 0, 0, NULL, wait_futex, wake_futex},
    {"futex_timed", SHORT_MS, -1, ETIMEDOUT, NULL, wait_futex_timed, NULL},
    {"futex_abs", SHORT_MS, -1, ETIMEDOUT, NULL, wait_futex_absolute, NULL},
    {"read_pipe", 0, 1, 0, prepare_pipe, wait_read, write_byte},
    {"read_eventfd", 0, 8, 0, prepare_eventfd, wait_counter, wake_eventfd},
    {"read_timerfd", SHORT_MS, 8, 0, prepare_timerfd, wait_timerfd, NULL},
    {"read_inotify", 0, 1, 0, prepare_inotify, wait_inotify, write_byte},
    {"read_signalfd", 0, 1, 0, prepare_signalfd, wait_signalfd, send_awaited},
    {"write_full_pipe", 0, 4096, 0, prepare_full_pipe, wait_write, read_block},
    {"accept", 0, 1, 0, prepare_listener, wait_accept, connect_once},
    {"recv", 0, 1, 0, prepare_sockets, wait_recv, write_byte},
    {"recvmsg", 0, 1, 0, prepare_sockets, wait_recvmsg, write_byte},
    {"recv_timed", SHORT_MS, -1, EAGAIN, prepare_timed_sockets, wait_recv, NULL},
    {"recv_rcvtimeo", 0, 1, 0, prepare_slow_sockets, wait_recv, write_byte},
    {"wait4", 0, 1, 0, fork_child, wait_wait4, write_byte},
    {"waitid", 0, 1, 0, fork_child, wait_waitid, write_byte},
    {"pause", 0, -1, EINTR, NULL, wait_pause, send_wake},
    {"sigsuspend", 0, -1, EINTR, NULL, wait_sigsuspend, send_wake},
    {"sigwaitinfo", 0, AWAITED_SIGNAL, 0, NULL, wait_sigwaitinfo, send_awaited},
    {"sigtimedwait", SHORT_MS, -1, EAGAIN, NULL, wait_sigtimedwait, NULL},
    {"semop", 0, 0, 0, prepare_semaphore, wait_semop, give_semaphore},
    {"semtimedop", SHORT_MS, -1, EAGAIN, prepare_semaphore, wait_semtimedop, NULL},
    {"msgrcv", 0, 1, 0, prepare_messages, wait_msgrcv, send_message},
    {"mq_timedreceive", SHORT_MS, -1, ETIMEDOUT, prepare_queue, wait_mq, NULL},
    {"flock", 0, 0, 0, prepare_flock, wait_flock, drop_flock},
    {"setlkw", 0, 0, 0, prepare_ofd_lock, wait_setlkw, drop_ofd_lock},
    {"ofd_setlkw", 0, 0, 0, prepare_ofd_lock, wait_ofd_setlkw, drop_ofd_lock},
    {"io_uring_enter", 0, 0, 0, prepare_uring, wait_uring, NULL},
    {"io_getevents", 0, 0, 0, prepare_aio, wait_getevents, NULL},
    {"io_getevents_timed", SHORT_MS, 0, 0, prepare_aio, wait_getevents_timed, NULL},
    {NULL, 0, 0, 0, NULL, NULL, NULL},
};
