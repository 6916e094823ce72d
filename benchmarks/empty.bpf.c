/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Programs that do nothing, on the recorder's hooks: what the kernel charges for the hooks themselves. */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "GPL";

SEC("cgroup_skb/egress") int sent(struct __sk_buff *skb) { return 1; }
SEC("cgroup_skb/ingress") int received(struct __sk_buff *skb) { return 1; }
SEC("raw_tp/sock_send_length") int write_returned(void *ctx) { return 0; }
SEC("raw_tp/inet_sock_set_state") int state_changed(void *ctx) { return 0; }
