/* Linux without a C library: the calls that the stub makes, and what it does with memory. Every call gives its result or the
 * negative errno. */
#pragma once
#if defined(__x86_64__)
#include "arch_x86_64.h"
#elif defined(__aarch64__)
#include "arch_aarch64.h"
#else
#error "x86-64 and arm64 only"
#endif

typedef unsigned long size_t;
typedef unsigned char u8;
#define NULL ((void *)0)

#define CALL(name, a, b, c, d, e, f) sys(SYS_##name, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))

/* The same on both machines (O_DIRECTORY and O_NOFOLLOW are not, and not used). */
enum { O_RDONLY = 0, O_WRONLY = 1, O_CREAT = 0100, O_EXCL = 0200, O_CLOEXEC = 02000000, AT_FDCWD = -100 };
enum { ENOENT = 2, EINTR = 4, EAGAIN = 11, ENOTDIR = 20, ENOSPC = 28, ENAMETOOLONG = 36, EPROTO = 71, ETIMEDOUT = 110 };
enum { AF_UNIX = 1, SOCK_STREAM = 1, SOCK_CLOEXEC = O_CLOEXEC, SOL_SOCKET = 1, SO_SNDTIMEO = 21 };
enum { MSG_DONTWAIT = 0x40, MSG_NOSIGNAL = 0x4000, POLLIN = 1, POLLOUT = 4, CLOCK_MONOTONIC = 1, SIG_BLOCK = 0, SIGPIPE = 13 };
enum { NSFS_MAGIC = 0x6e736673 }; /* linux/magic.h: the file system of namespaces */

struct timespec { long seconds, nanoseconds; };
struct timeval { long seconds, microseconds; };
struct pollfd { int fd; short events, revents; };
struct sockaddr_un { unsigned short family; char path[108]; };
struct statfs { long type, rest[14]; };
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

/* Behind what is there already; gives where that ends. */
static size_t put(char *to, size_t at, const char *text, size_t length)
{
	memcpy(to + at, text, length);
	return at + length;
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
