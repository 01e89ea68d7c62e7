/*
 * A kernel without IFF_VNET_HDR, as far as one program can tell: loaded with LD_PRELOAD, refuses TUNSETOFFLOAD
 * (linux/if_tun.h) and passes every other ioctl(2) on.
 */
#include <errno.h>
#include <linux/if_tun.h>
#include <stdarg.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

int ioctl(int fd, unsigned long request, ...)
{
	va_list rest;
	va_start(rest, request);
	void *argument = va_arg(rest, void *);
	va_end(rest);
	if (request == TUNSETOFFLOAD) {
		errno = EINVAL;
		return -1;
	}
	return syscall(SYS_ioctl, fd, request, argument);
}
