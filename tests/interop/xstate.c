/*
 * User Mode Linux keeps 2696 bytes of a process's floating point state and sets them with
 * PTRACE_SETREGSET. Where the host's processor has more (AMX), the host's kernel takes nothing
 * but the whole, and the guest dies at its first process. Preloaded into linux.uml, this fills
 * in the rest with what a process had before: nobody in the guest uses that.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/types.h>
#include <sys/uio.h>

#define NT_X86_XSTATE 0x202

static long (*real)(int, pid_t, void *, void *);
static char whole[64 * 1024];
static size_t whole_length;

__attribute__((constructor)) static void find(void) { real = dlsym(RTLD_NEXT, "ptrace"); }

long ptrace(enum __ptrace_request request, ...) {
    va_list list;
    va_start(list, request);
    pid_t pid = va_arg(list, pid_t);
    void *address = va_arg(list, void *);
    void *data = va_arg(list, void *);
    va_end(list);
    int get = request == PTRACE_GETREGSET, set = request == PTRACE_SETREGSET;
    if ((!get && !set) || (long)address != NT_X86_XSTATE)
        return real(request, pid, address, data);
    struct iovec *part = data;
    if (get || !whole_length) {
        struct iovec all = {whole, sizeof whole};
        long result = real(PTRACE_GETREGSET, pid, address, &all);
        if (result < 0)
            return result;
        whole_length = all.iov_len;
    }
    if (part->iov_len > whole_length)
        part->iov_len = whole_length;
    if (get) {
        memcpy(part->iov_base, whole, part->iov_len);
        return 0;
    }
    memcpy(whole, part->iov_base, part->iov_len);
    struct iovec all = {whole, whole_length};
    return real(PTRACE_SETREGSET, pid, address, &all);
}
