/* The system calls of arm64 (include/uapi/asm-generic/unistd.h) and how a program starts there. */
#pragma once

enum {
	SYS_read = 63, SYS_write = 64, SYS_close = 57, SYS_socket = 198, SYS_connect = 203, SYS_sendto = 206, SYS_recvfrom = 207,
	SYS_setsockopt = 208, SYS_getdents64 = 61, SYS_clock_gettime = 113, SYS_exit_group = 94, SYS_openat = 56,
	SYS_mkdirat = 34, SYS_unlinkat = 35, SYS_renameat = 38, SYS_ppoll = 73, SYS_rt_sigprocmask = 135, SYS_statfs = 43,
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
