# What a tunnel has to know of the SSH server, in lines of a word and its value. Changes nothing.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
LC_ALL=C
export PATH LC_ALL
as=
echo "underpass-probe 1"
echo "uid $(id -u)"
echo "user $(id -un)"
if [ "$(id -u)" != 0 ] && sudo -n sh -c : </dev/null >/dev/null 2>&1; then
    as="sudo -n"
    echo "sudo yes"
fi
for tool in ip nft iptables; do
    if command -v $tool >/dev/null 2>&1; then echo "has $tool"; fi
done
# A program may be there whose part of the kernel is not.
$as nft list tables >/dev/null 2>&1 </dev/null && echo "works nft"
drops "(tun|tap)[0-9*]+" | head -n 20 | cut -c 1-80 | sed "s/^/drops /"
[ ! -c /dev/net/tun ] || echo "has tun"
echo "forward4 $(cat /proc/sys/net/ipv4/ip_forward 2>/dev/null)"
echo "forward6 $(cat /proc/sys/net/ipv6/conf/all/forwarding 2>/dev/null)"
echo "disable6 $(cat /proc/sys/net/ipv6/conf/default/disable_ipv6 2>/dev/null)"
for flags in /sys/class/net/*/tun_flags; do
    [ -f "$flags" ] || continue
    device=${flags%/*}
    echo "tun ${device##*/} $(cat "$flags") $(cat "$device/owner")"
done
# The answer is short: what is too long is left out.
ip -o link show 2>/dev/null | head -n 200 | cut -c 1-80 | sed "s/^/link /"
ip -o addr show 2>/dev/null | head -n 120 | cut -c 1-120 | sed "s/^/address /"
ip -4 route show table all 2>/dev/null | head -n 300 | cut -c 1-40 | sed "s/^/route4 /"
ip -6 route show table all 2>/dev/null | head -n 200 | cut -c 1-64 | sed "s/^/route6 /"
echo "end"
