/* What the stub says: one JSON object, whole, on stdout; for whoever reads the runtime's log, lines on stderr. */
#pragma once
#include "request.h"

/* Error codes of the specification. */
enum { INVALID_ENVIRONMENT = 4, IO_FAILURE = 5, UNDECODABLE = 6, INVALID_CONFIGURATION = 7, TRY_AGAIN_LATER = 11, NOT_AVAILABLE = 50 };

static const char *const VERSIONS[] = { "\"0.3.0\"", "\"0.3.1\"", "\"0.4.0\"", "\"1.0.0\"", "\"1.1.0\"" };
enum { COUNT = sizeof(VERSIONS) / sizeof(*VERSIONS) };

static size_t put_number(char *to, size_t at, long number)
{
	char digits[24];
	size_t first = sizeof(digits);

	do
		digits[--first] = (char)('0' + number % 10);
	while (number /= 10);
	return put(to, at, digits + first, sizeof(digits) - first);
}

static void say(const char *text)
{
	write_all(2, text, length_of(text));
}

static void say_number(long number)
{
	char digits[24];

	write_all(2, digits, put_number(digits, 0, number));
}

static void say_error(const char *what, long error)
{
	say("ackward-cni: ");
	say(what);
	if (error < 0) {
		say(" (errno ");
		say_number(-error);
		say(")");
	}
	say("\n");
}

/* The request's version, if it is one of ours, with its quotes; else one that all runtimes read. */
static struct text version(void)
{
	for (int i = 0; i < COUNT; i++)
		if (members.version.length == length_of(VERSIONS[i]) && begins(members.version.at, members.version.length, VERSIONS[i]))
			return members.version;
	return (struct text){ "\"1.0.0\"", 7 };
}

/* The error object on stdout; gives the exit code. */
static int fail(int code, const char *message, const char *details)
{
	char object[1024];
	struct text known = version();
	size_t at = put(object, 0, "{\"cniVersion\":", 14);

	at = put(object, at, known.at, known.length);
	at = put(object, at, ",\"code\":", 8);
	at = put_number(object, at, code);
	at = put(object, at, ",\"msg\":\"", 8);
	at = put(object, at, message, length_of(message));
	at = put(object, at, "\",\"details\":\"", 13);
	at = put(object, at, details, length_of(details));
	at = put(object, at, "\"}\n", 3);
	write_all(1, object, at);
	return 1;
}

static int print_versions(void)
{
	struct text known = version();
	char object[256];
	size_t at = put(object, 0, "{\"cniVersion\":", 14);

	at = put(object, at, known.at, known.length);
	at = put(object, at, ",\"supportedVersions\":[", 22);
	for (int i = 0; i < COUNT; i++) {
		if (i)
			at = put(object, at, ",", 1);
		at = put(object, at, VERSIONS[i], length_of(VERSIONS[i]));
	}
	at = put(object, at, "]}\n", 3);
	return write_all(1, object, at) ? 1 : 0;
}

static int print_previous(void)
{
	if (!members.previous.at || members.previous.at[0] != '{')
		return fail(INVALID_CONFIGURATION, "prevResult is missing or no object", "this plugin is chained after the one that makes the network");
	return write_all(1, members.previous.at, members.previous.length) ? 1 : 0;
}
