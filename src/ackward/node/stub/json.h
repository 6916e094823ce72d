/* A strict scanner of JSON (RFC 8259) that finds members of the outermost object as they stand, and changes nothing. */
#pragma once
#include "system.h"

enum { DEEPEST = 128 };

struct text { const char *at; size_t length; };

/* Values as they stand, strings with their quotes; at == NULL: not there. Of a name that comes twice the last counts, as for
 * Go and Python. Names are compared as bytes: no runtime writes ours with escapes. */
struct members { struct text version, previous, policy, socket; };

static const char *json_value(const char *at, const char *end, int depth);

static const char *json_space(const char *at, const char *end)
{
	while (at < end && (*at == ' ' || *at == '\t' || *at == '\n' || *at == '\r'))
		at++;
	return at;
}

static int json_hexadecimal(char c)
{
	return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

/* The rest of a character of several bytes (RFC 3629, section 4: no overlong forms, no surrogates, nothing above U+10FFFF). */
static const char *json_utf8(u8 first, const char *at, const char *end)
{
	int more = first >= 0xf0 ? 3 : first >= 0xe0 ? 2 : 1;
	u8 low = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
	u8 high = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;

	if (first < 0xc2 || first > 0xf4)
		return NULL;
	for (; more; more--, at++, low = 0x80, high = 0xbf)
		if (at == end || (u8)*at < low || (u8)*at > high)
			return NULL;
	return at;
}

static const char *json_string(const char *at, const char *end)
{
	if (at == end || *at++ != '"')
		return NULL;
	while (at < end) {
		u8 c = (u8)*at++;

		if (c == '"')
			return at;
		if (c < 0x20)
			return NULL;
		if (c >= 0x80 && !(at = json_utf8(c, at, end)))
			return NULL;
		if (c != '\\')
			continue;
		if (at == end)
			return NULL;
		c = (u8)*at++;
		if (c == 'u') {
			for (int i = 0; i < 4; i++, at++)
				if (at == end || !json_hexadecimal(*at))
					return NULL;
		} else if (c != '"' && c != '\\' && c != '/' && c != 'b' && c != 'f' && c != 'n' && c != 'r' && c != 't') {
			return NULL;
		}
	}
	return NULL;
}

static const char *json_digits(const char *at, const char *end)
{
	const char *first = at;

	while (at < end && *at >= '0' && *at <= '9')
		at++;
	return at == first ? NULL : at;
}

static const char *json_number(const char *at, const char *end)
{
	if (at < end && *at == '-')
		at++;
	if (at < end && *at == '0')
		at++;
	else if (!(at = json_digits(at, end)))
		return NULL;
	if (at < end && *at == '.' && !(at = json_digits(at + 1, end)))
		return NULL;
	if (at < end && (*at == 'e' || *at == 'E')) {
		at++;
		if (at < end && (*at == '+' || *at == '-'))
			at++;
		at = json_digits(at, end);
	}
	return at;
}

static const char *json_word(const char *at, const char *end, const char *word)
{
	return begins(at, (size_t)(end - at), word) ? at + length_of(word) : NULL;
}

static struct text *json_member(struct members *members, struct text name)
{
	if (begins(name.at, name.length, "\"cniVersion\""))
		return &members->version;
	if (begins(name.at, name.length, "\"prevResult\""))
		return &members->previous;
	if (begins(name.at, name.length, "\"failurePolicy\""))
		return &members->policy;
	if (begins(name.at, name.length, "\"agentSocket\""))
		return &members->socket;
	return NULL;
}

static const char *json_object(const char *at, const char *end, int depth, struct members *members)
{
	if (at == end || *at++ != '{')
		return NULL;
	at = json_space(at, end);
	if (at < end && *at == '}')
		return at + 1;
	for (;;) {
		struct text name, value, *wanted;
		const char *past;

		name.at = json_space(at, end);
		if (!(past = json_string(name.at, end)))
			return NULL;
		name.length = (size_t)(past - name.at);
		past = json_space(past, end);
		if (past == end || *past != ':')
			return NULL;
		value.at = json_space(past + 1, end);
		if (!(past = json_value(value.at, end, depth + 1)))
			return NULL;
		value.length = (size_t)(past - value.at);
		if (members && (wanted = json_member(members, name)))
			*wanted = value;
		past = json_space(past, end);
		if (past == end)
			return NULL;
		if (*past == '}')
			return past + 1;
		if (*past != ',')
			return NULL;
		at = past + 1;
	}
}

static const char *json_array(const char *at, const char *end, int depth)
{
	at = json_space(at + 1, end);
	if (at < end && *at == ']')
		return at + 1;
	for (;;) {
		if (!(at = json_value(json_space(at, end), end, depth + 1)))
			return NULL;
		at = json_space(at, end);
		if (at == end)
			return NULL;
		if (*at == ']')
			return at + 1;
		if (*at++ != ',')
			return NULL;
	}
}

/* One value; gives what follows it, or NULL. */
static const char *json_value(const char *at, const char *end, int depth)
{
	if (at == end || depth > DEEPEST)
		return NULL;
	switch (*at) {
	case '{':
		return json_object(at, end, depth, NULL);
	case '[':
		return json_array(at, end, depth);
	case '"':
		return json_string(at, end);
	case 't':
		return json_word(at, end, "true");
	case 'f':
		return json_word(at, end, "false");
	case 'n':
		return json_word(at, end, "null");
	default:
		return json_number(at, end);
	}
}

/* The members of the one object that the text is; 0 if it is none. */
static int json_members(const char *at, size_t length, struct members *members)
{
	const char *end = at + length;

	memset(members, 0, sizeof(*members));
	at = json_object(json_space(at, end), end, 0, members);
	return at && json_space(at, end) == end;
}
