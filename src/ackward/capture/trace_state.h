/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* What the trace knows of each socket, and the events that it gives to user space. */
#ifndef ACKWARD_TRACE_STATE_H
#define ACKWARD_TRACE_STATE_H

#include "tcp_timers.h"

#define MAX_SOCKETS 65536
#define RST 4 /* RFC 9293 section 3.1 */
#define ECN_MASK 3 /* RFC 3168 section 5: both bits set is "congestion experienced" */

enum what { ACK_ARMED = 1, ACK_SENT = 2, WRITE_RELEASED = 3, SENT_AGAIN = 4, MODE_CHANGED = 5, ENDED = 6 };

/* What happened to a socket since its mode was last looked at; diagnosis/tracing.py has the same numbers. */
enum happened {
	DATA_SENT = 1,
	TIMER_FIRED = 2,
	DATA_RECEIVED = 4,
	OUT_OF_ORDER = 8, /* older, later or beyond the window */
	CONGESTION_MARK = 16,
	FIN_RECEIVED = 32,
};

struct ack_mode {
	u8 quick;
	u8 pingpong;
	u8 ato; /* jiffies */
	u8 route_quickack; /* 2: this kernel does not say */
};

#define MODE(mode, tp, GET, GET_BITS)                                                          \
	do {                                                                                   \
		(mode)->quick = GET(tp, inet_conn.icsk_ack.quick);                             \
		(mode)->pingpong = GET(tp, inet_conn.icsk_ack.pingpong);                       \
		(mode)->ato = GET_BITS(tp, inet_conn.icsk_ack.ato);                            \
		(mode)->route_quickack = 2;                                                    \
		if (bpf_core_field_exists((tp)->inet_conn.icsk_ack.dst_quick_ack))             \
			(mode)->route_quickack = GET_BITS(tp, inet_conn.icsk_ack.dst_quick_ack); \
	} while (0)

struct traced_end {
	u64 cgroup_id;
	u32 netns;
	u32 pid;
	u32 first_sent;     /* the sequence number of our SYN */
	u32 first_received; /* the peer's */
	u16 family;
	u16 local_port;
	u16 remote_port;
	u8 pingpong_threshold; /* 0: this kernel does not say */
	u8 unused;
	u8 local_address[16];
	u8 remote_address[16];
	u8 command[16];
};

struct trace_event {
	struct segment_event now;  /* the segment, or the moment, at which this was noticed */
	struct segment_event held; /* WRITE_RELEASED: the moment from which bytes were held */
	struct traced_end end;
	u64 data_ns; /* the oldest data that has no ACK yet came; 0 if all has */
	struct ack_mode before; /* as last looked at; what holds now stands in `now` */
	u8 route_quickack;
	u8 what;
	u8 happened;
	u8 timer; /* enum write_timer: whose handler sends this; 0 if none does */
	u8 by_ack_timer; /* the delayed-ACK timer sends this */
	u8 unused[7];
};

/* Never used: keeps the type in the object, from which user space's layout is generated. */
struct trace_event *layout SEC(".data");

struct traced_socket {
	struct traced_end end;
	struct segment_event held; /* time_ns is 0 if nothing is */
	u64 data_ns;
	u64 later_data_ns;
	struct unacknowledged unacknowledged;
	u32 data_end;     /* of the oldest data without an ACK */
	u32 received_end; /* of all data in order so far */
	u32 flow;
	struct ack_mode mode;
	u8 happened;
	u8 timer; /* of the segment that was last sent, as in the event */
	u8 by_ack_timer;
	u8 owner_known;
	u8 told; /* an event of it has left */
};

const volatile struct {
	u64 slow_ns;
	u32 netns; /* 0: any */
	u16 port;  /* 0: any */
	u8 every_ack;
	u8 unused;
} settings = {};

struct {
	u64 lost;
	u32 flows;
	u32 refused; /* sockets that found no room */
	u32 unparsed;
} totals = {};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4 << 20);
} events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_SOCKETS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, u64); /* address of the socket */
	__type(value, struct traced_socket);
} sockets SEC(".maps");

/* All zeros, never written: what a new record begins as. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_RDONLY_PROG);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct traced_socket);
} blank SEC(".maps");

#endif
