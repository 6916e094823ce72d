#!/usr/bin/env bash
# Installs what a task needs and the machine lacks. Usage: setup.sh build|lab|tests|bench|image
set -euo pipefail

case "${1:-}" in
build) need="clang lld llvm libbpf-dev libbpf1 python3-venv" ;;
lab) need="iproute2 util-linux" ;;
tests) need="bpftool busybox-static chromium containerd containernetworking-plugins default-jdk-headless ethtool gcc haproxy iptables kubernetes-client libc6-dev nftables nginx nodejs postgresql qemu-user-static qperf redis-server redis-tools runc systemd tcpdump tshark wrk" ;;
bench) need="qperf iperf3 bpftool tshark haproxy iptables containernetworking-plugins libnginx-mod-stream nginx socat wrk gcc libc6-dev postgresql redis-server redis-tools" ;;
image) need="iproute2 libelf1 python3 zlib1g" ;; # what an image of deploy/Dockerfile has beside its base
*) echo "usage: $0 build|lab|tests|bench|image" >&2; exit 2 ;;
esac

# kubectl has many packages, and two of them do not go together: any will do.
installed() {
	[ "$1" = kubernetes-client ] && command -v kubectl >/dev/null && return
	dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null | grep -qx installed
}

missing=()
for package in $need; do
	installed "$package" || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0

if ! command -v apt-get >/dev/null; then
	echo "missing: ${missing[*]} (Debian's names). Next: install them with this system's package manager." >&2
	exit 3
fi
if [ "$(id -u)" -ne 0 ]; then
	echo "missing: ${missing[*]}. Next: run \`sudo apt-get install ${missing[*]}\`." >&2
	exit 3
fi
echo "installing ${missing[*]}" >&2
export DEBIAN_FRONTEND=noninteractive
# Servers that tests start by themselves (nginx, containerd, ...) shall not be started by their packages as well.
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
	trap 'rm -f $policy' EXIT
	printf '#!/bin/sh\nexit 101\n' >$policy
	chmod 755 $policy
fi
# Another apt may be at work on a machine that has just come up.
options=(-o DPkg::Lock::Timeout=400 -qq)
apt-get "${options[@]}" update >&2
apt-get "${options[@]}" install -y --no-install-recommends "${missing[@]}" >/dev/null
