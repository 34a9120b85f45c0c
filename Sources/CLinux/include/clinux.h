// System calls and kernel structures that Swift cannot import. No state, no policy, no malloc.
// Every function returns a value >= 0, or -errno: errno is never read after Swift code ran.
#ifndef CLINUX_H
#define CLINUX_H

#include "clinux_channel.h"
#include "clinux_commands.h"
#include "clinux_files.h"
#include "clinux_process.h"
#include "clinux_ptrace.h"
#include "clinux_sockets.h"
#include "clinux_tracking.h"

#endif
