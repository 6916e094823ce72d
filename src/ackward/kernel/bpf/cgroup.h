/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* The v2 cgroup of a socket, for hooks that have no helper to ask with. A child of a listener is of the listener's. */
#ifndef ACKWARD_CGROUP_H
#define ACKWARD_CGROUP_H

#include "kernel_types.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#define DEEPEST_CGROUP 32 /* levels above a socket's that are looked at */

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct kernfs_node___cgroup {
	u64 id;
};

struct cgroup___cgroup;

struct cgroup_subsys_state___cgroup {
	struct cgroup___cgroup *cgroup;
	struct cgroup_subsys_state___cgroup *parent;
};

struct cgroup___cgroup {
	struct cgroup_subsys_state___cgroup self;
	struct kernfs_node___cgroup *kn;
};

struct sock_cgroup_data___cgroup {
	struct cgroup___cgroup *cgroup; /* behind a union before 5.15: then it is not found, and null here */
};

struct sock___cgroup {
	struct sock_cgroup_data___cgroup sk_cgrp_data;
};

#pragma clang attribute pop

static __always_inline struct cgroup___cgroup *cgroup_of(const void *sk)
{
	const struct sock___cgroup *socket = sk;

	if (!bpf_core_field_exists(socket->sk_cgrp_data.cgroup))
		return 0;
	return BPF_CORE_READ(socket, sk_cgrp_data.cgroup);
}

/* Whether it is the cgroup of this id, or below that. */
static __always_inline bool below_cgroup(struct cgroup___cgroup *cgroup, u64 id)
{
	for (int i = 0; i < DEEPEST_CGROUP && cgroup; i++) {
		struct cgroup_subsys_state___cgroup *parent;

		if (BPF_CORE_READ(cgroup, kn, id) == id)
			return true;
		parent = BPF_CORE_READ(cgroup, self.parent);
		cgroup = parent ? BPF_CORE_READ(parent, cgroup) : 0;
	}
	return false;
}

#endif
