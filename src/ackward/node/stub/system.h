/* Linux without a C library: the calls that the stub makes, on x86-64 and arm64. Numbers: arch/x86/entry/syscalls/syscall_64.tbl
 * and include/uapi/asm-generic/unistd.h. Every call gives its result or the negative errno. */
#pragma once

typedef unsigned long size_t;
typedef long ssize_t;
typedef unsigned char u8;
typedef unsigned int u32;
#define NULL ((void *)0)

#if defined(__x86_64__)
enum {
	SYS_read = 0, SYS_write = 1, SYS_close = 3, SYS_socket = 41, SYS_connect = 42, SYS_sendto = 44, SYS_recvfrom = 45,
	SYS_setsockopt = 54, SYS_getdents64 = 217, SYS_clock_gettime = 228, SYS_exit_group = 231, SYS_openat = 257,
	SYS_mkdirat = 258, SYS_unlinkat = 263, SYS_renameat = 264, SYS_ppoll = 271, SYS_rt_sigprocmask = 14,
};
__asm__(".globl _start\n_start:\n\txor %ebp, %ebp\n\tmov %rsp, %rdi\n\tand $-16, %rsp\n\tcall begin\n");

static long sys(long number, long a, long b, long c, long d, long e, long f)
{
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	register long r9 __asm__("r9") = f;
	long result;

	__asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return result;
}
#elif defined(__aarch64__)
enum {
	SYS_read = 63, SYS_write = 64, SYS_close = 57, SYS_socket = 198, SYS_connect = 203, SYS_sendto = 206, SYS_recvfrom = 207,
	SYS_setsockopt = 208, SYS_getdents64 = 61, SYS_clock_gettime = 113, SYS_exit_group = 94, SYS_openat = 56,
	SYS_mkdirat = 34, SYS_unlinkat = 35, SYS_renameat = 38, SYS_ppoll = 73, SYS_rt_sigprocmask = 135,
};
__asm__(".globl _start\n_start:\n\tmov x29, #0\n\tmov x30, #0\n\tmov x0, sp\n\tb begin\n");

static long sys(long number, long a, long b, long c, long d, long e, long f)
{
	register long x8 __asm__("x8") = number;
	register long x0 __asm__("x0") = a;
	register long x1 __asm__("x1") = b;
	register long x2 __asm__("x2") = c;
	register long x3 __asm__("x3") = d;
	register long x4 __asm__("x4") = e;
	register long x5 __asm__("x5") = f;

	__asm__ volatile("svc #0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
	return x0;
}
#else
#error "x86-64 and arm64 only"
#endif

#define CALL(name, a, b, c, d, e, f) sys(SYS_##name, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))

/* The same on both machines (O_DIRECTORY and O_NOFOLLOW are not, and not used). */
enum { O_RDONLY = 0, O_WRONLY = 1, O_CREAT = 0100, O_EXCL = 0200, O_CLOEXEC = 02000000, AT_FDCWD = -100 };
enum { EINTR = 4, EAGAIN = 11, ENOSPC = 28, ENAMETOOLONG = 36, EPROTO = 71, ETIMEDOUT = 110 };
enum { AF_UNIX = 1, SOCK_STREAM = 1, SOCK_CLOEXEC = O_CLOEXEC, SOL_SOCKET = 1, SO_SNDTIMEO = 21 };
enum { MSG_DONTWAIT = 0x40, MSG_NOSIGNAL = 0x4000, POLLIN = 1, POLLOUT = 4, CLOCK_MONOTONIC = 1, SIG_BLOCK = 0, SIGPIPE = 13 };

struct timespec { long seconds, nanoseconds; };
struct timeval { long seconds, microseconds; };
struct pollfd { int fd; short events, revents; };
struct sockaddr_un { unsigned short family; char path[108]; };
struct dirent64 { unsigned long inode; long offset; unsigned short length; u8 type; char name[]; };

/* The compiler may call these two by itself. */
void *memcpy(void *to, const void *from, size_t length)
{
	for (size_t i = 0; i < length; i++)
		((char *)to)[i] = ((const char *)from)[i];
	return to;
}

void *memset(void *to, int value, size_t length)
{
	for (size_t i = 0; i < length; i++)
		((char *)to)[i] = (char)value;
	return to;
}

static size_t length_of(const char *text)
{
	size_t length = 0;

	while (text[length])
		length++;
	return length;
}

static int begins(const char *text, size_t length, const char *word)
{
	size_t i = 0;

	for (; word[i]; i++)
		if (i == length || text[i] != word[i])
			return 0;
	return 1;
}

static int same(const char *text, const char *word)
{
	return begins(text, length_of(text), word) && length_of(text) == length_of(word);
}

static long now_ms(void)
{
	struct timespec now;

	CALL(clock_gettime, CLOCK_MONOTONIC, &now, 0, 0, 0, 0);
	return now.seconds * 1000 + now.nanoseconds / 1000000;
}

/* Waits until fd is ready or the moment has come; 0 or -errno. */
static long wait_for(int fd, short events, long until_ms)
{
	for (;;) {
		long left = until_ms - now_ms();
		struct timespec span = { left / 1000, left % 1000 * 1000000 };
		struct pollfd poll = { fd, events, 0 };
		long ready;

		if (left <= 0)
			return -ETIMEDOUT;
		ready = CALL(ppoll, &poll, 1, &span, 0, 0, 0);
		if (ready > 0)
			return 0;
		if (ready < 0 && ready != -EINTR)
			return ready;
	}
}

static long write_all(int fd, const char *data, size_t length)
{
	while (length) {
		long written = CALL(write, fd, data, length, 0, 0, 0);

		if (written == -EINTR)
			continue;
		if (written < 0)
			return written;
		data += written;
		length -= (size_t)written;
	}
	return 0;
}
