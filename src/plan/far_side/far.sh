# The far end of a tunnel on the SSH server: set up, watched and taken back by this one file, for dash and busybox ash.
# Above stand the variables that FarSide writes: dev kind id owner mtu inbound ours4 far4 back4 ours6 far6 back6.
# It has neither single quotes nor backslashes, so that any login shell hands it on as it is.
#
# Beside this file, in a directory that only root may enter:
#   DEV.id         whose set-up it is          changed    kernel settings as they were, for all tunnels together
#   DEV.watch      the process that watches    opened4/6  interfaces that did not forward before
#   DEV.index      which device it is about    lock/      who changes any of this right now
#   DEV.device     the device that was made    DEV.made   rules that were made

PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
LC_ALL=C
export PATH LC_ALL
umask 077
dir=${0%/*}
state=$dir/$dev
table=underpass_$dev
chain=UNDERPASS-$dev
v4=/proc/sys/net/ipv4
v6=/proc/sys/net/ipv6/conf
is_locked=
as=
newline="
"
quote=$(cat <<END
"
END
)

get() { cat "$1" 2>/dev/null; }
has() { command -v "$1" >/dev/null 2>&1; }
# Not every busybox sleeps for a part of a second.
nap() { sleep 0.1 2>/dev/null || sleep 1; }
# add_line FILE LINE: once.
add_line() { grep -qxF "$2" "$1" 2>/dev/null || echo "$2" >>"$1"; }
made() { grep -qxF "$1" "$state.made" 2>/dev/null; }

# attempt COMMAND...: for up to 1.5 s.
attempt() {
    tries=0
    until "$@"; do
        tries=$((tries + 1))
        [ $tries -lt 15 ] || return 1
        nap
    done
}

# One at a time, of all tunnels: what they share is counted by who is left.
lock() {
    waits=0
    until mkdir -p "$dir" && mkdir "$dir/lock" 2>/dev/null; do
        waits=$((waits + 1))
        holder=$(get "$dir/lock/pid")
        if [ $((waits % 5)) = 0 ] && ! [ -d "/proc/${holder:-none}" ]; then rm -rf "$dir/lock"; fi
        [ $waits -lt 20 ] || return 1
        nap
    done
    echo $$ >"$dir/lock/pid"
    is_locked=yes
}

unlock() {
    [ -n "$is_locked" ] || return 0
    is_locked=
    rm -rf "$dir/lock"
    # The last one.
    rmdir "$dir" 2>/dev/null
}

# Says why on one line, and leaves nothing behind.
fail() {
    echo "failed ${1%%"$newline"*}"
    if [ -n "$is_locked" ]; then
        case $(get "$state.id") in
        "$id") take_back ;;
        "") rm -f "$state.sh" ;;
        esac
        unlock
    fi
    exit 1
}

# step WHAT COMMAND...
step() {
    what=$1
    shift
    said=$("$@" 2>&1) || fail "$what: $said"
}

# Not from /sys, which may show another network namespace.
link() { ip -o link show dev "$dev" 2>/dev/null; }

# The kernel numbers devices: one of the same name that came later is another one.
find_index() {
    index=$(link)
    index=${index%%:*}
    [ -n "$index" ]
}

is_the_same() { find_index && [ "$index" = "$(get "$1")" ]; }

# The device is there, and somebody holds it open.
is_held() {
    case $(link) in
    "$(get "$state.index"): $dev: "*LOWER_UP*) ;;
    *) return 1 ;;
    esac
}

# change PATH VALUE: a kernel setting, and how it was.
change() {
    old=$(get "$1")
    [ -n "$old" ] || return 1
    [ "$old" != "$2" ] || return 0
    # Written before it is changed, and once: another tunnel may have been first.
    grep -qF "$1 " "$dir/changed" 2>/dev/null || echo "$1 $old $2" >>"$dir/changed"
    echo "$2" >"$1"
}

# closed DIRECTORY SETTING: interfaces that do not forward, and are no tunnels of ours.
closed() {
    for path in "$1"/*; do
        name=${path##*/}
        case $name in all | default | lo | *[!A-Za-z0-9_.:@-]*) continue ;; esac
        if ! [ -f "$dir/$name.id" ] && [ "$(get "$path/$2")" = 0 ]; then echo "$name"; fi
    done
}

# Each interface of today shall forward, not all of them by one setting: that would change more than this, and nobody
# could tell later who else needs it. First they are written down, so that the guard is there before.
note4() {
    [ "$(get $v4/ip_forward)" = 0 ] || return 0
    for name in $(closed $v4/conf forwarding); do add_line "$dir/opened4" "$name"; done
}

open4() {
    [ "$(get $v4/ip_forward)" = 0 ] || return 0
    open_each $v4/conf forwarding "$dir/opened4"
}

# open_each DIRECTORY SETTING NAMES
open_each() {
    for name in $(get "$3"); do
        [ ! -f "$1/$name/$2" ] || change "$1/$name/$2" 1 || return 1
    done
    # It goes with the device.
    echo 1 >"$1/$dev/$2"
}

# The same where the kernel can (Linux 6.17).
note6() {
    forwarding6=forwarding
    [ ! -f "$v6/$dev/force_forwarding" ] || forwarding6=force_forwarding
    [ "$(get $v6/all/forwarding)" = 0 ] || return 0
    for name in $(closed $v6 $forwarding6); do add_line "$dir/opened6" "$name"; done
}

# Before, it is one setting. It writes those of each, and ends the default routes that routers announce, but where
# accept_ra is 2.
open6() {
    [ "$(get $v6/all/forwarding)" = 0 ] || return 0
    if [ $forwarding6 = force_forwarding ]; then
        open_each $v6 force_forwarding "$dir/opened6"
        return
    fi
    for path in $v6/*/forwarding; do
        [ "$(get "$path")" = 0 ] || add_line "$dir/changed" "$path 1 any"
    done
    for path in $v6/*/accept_ra; do
        [ "$(get "$path")" != 1 ] || change "$path" 2
    done
    change $v6/all/forwarding 1
}

# As it was, but for what somebody else has set since.
restore() {
    [ -f "$dir/changed" ] || return 0
    forwards=$(get $v4/ip_forward)
    all=$v6/all/forwarding
    if grep -qF "$all " "$dir/changed" && [ "$(get $all)" = 1 ]; then echo 0 >$all; fi
    while read -r path old new; do
        case $path in
        "$all") continue ;;
        # Somebody has let all interfaces forward.
        $v4/*) [ "$forwards" = 0 ] || continue ;;
        esac
        [ -f "$path" ] || continue
        if [ "$new" = any ] || [ "$(get "$path")" = "$new" ]; then echo "$old" >"$path"; fi
    done <"$dir/changed"
}

uses_nft() { has nft && nft list tables >/dev/null 2>&1; }

# quoted WORDS: as nft lists names.
quoted() {
    list=
    for word in $1; do list="$list${list:+, }$quote$word$quote"; done
    echo "$list"
}

tunnels() {
    for path in "$dir"/*.id; do
        [ -f "$path" ] || continue
        path=${path##*/}
        echo "${path%.id}"
    done
}

# What was not forwarded before us is not forwarded beside us, except what others redirect themselves: one table for
# all tunnels together.
guard() {
    if uses_nft; then
        guard_nft ip "$dir/opened4" && guard_nft ip6 "$dir/opened6"
    else
        guard_tables iptables "$dir/opened4" && { ! has ip6tables || guard_tables ip6tables "$dir/opened6"; }
    fi
}

guard_nft() {
    opened=$(quoted "$(get "$2")")
    all=$(quoted "$(tunnels)")
    if [ -z "$opened" ] || [ -z "$all" ]; then
        nft delete table "$1" underpass 2>/dev/null
        return 0
    fi
    nft -f - <<END
add table $1 underpass
delete table $1 underpass
add table $1 underpass
add chain $1 underpass forward { type filter hook forward priority 0 ; policy accept ; }
add rule $1 underpass forward ct state established,related accept
add rule $1 underpass forward ct status dnat accept
add rule $1 underpass forward iifname { $opened } oifname != { $all } drop
END
}

guard_tables() {
    [ -n "$(get "$2")" ] || return 0
    drop_chain "$1" filter FORWARD UNDERPASS
    [ -n "$(tunnels)" ] || return 0
    $1 -w -N UNDERPASS && $1 -w -A UNDERPASS -m conntrack --ctstate ESTABLISHED,RELATED,DNAT -j RETURN || return 1
    for name in $(tunnels); do $1 -w -A UNDERPASS -o "$name" -j RETURN || return 1; done
    for name in $(get "$2"); do $1 -w -A UNDERPASS -i "$name" -j DROP || return 1; done
    $1 -w -I FORWARD -j UNDERPASS
}

# drop_chain IPTABLES TABLE FROM CHAIN
drop_chain() {
    while $1 -w -t "$2" -D "$3" -j "$4" 2>/dev/null; do :; done
    $1 -w -t "$2" -F "$4" 2>/dev/null && $1 -w -t "$2" -X "$4"
}

# nat_nft FAMILY SOURCES: a table of its own, at once instead of one that is there. Connections to us are let in where
# they are asked for. Linux before 4.18 needs both chains. sshd ends a tunnel that an IPv4 header alone is to go through
# (port-net.c, sys_tun_infilter), so that goes nowhere.
nat_nft() {
    add_line "$state.made" "nft-$1"
    forbid=
    [ "$inbound" = yes ] || forbid="add rule $1 $table forward oifname $quote$dev$quote drop"
    bare=
    [ "$1" = ip6 ] || bare="add rule $1 $table forward oifname $quote$dev$quote ip length 20 drop"
    nft -f - <<END
add table $1 $table
delete table $1 $table
add table $1 $table
add chain $1 $table prerouting { type nat hook prerouting priority -100 ; }
add chain $1 $table postrouting { type nat hook postrouting priority 100 ; }
add rule $1 $table postrouting oifname != "$dev" $1 saddr { $2 } masquerade
add chain $1 $table forward { type filter hook forward priority 0 ; policy accept ; }
$bare
add rule $1 $table forward ct state established,related accept
$forbid
END
}

# nat_tables IPTABLES SOURCES
nat_tables() {
    add_line "$state.made" "nat-$1"
    drop_chain "$1" nat POSTROUTING "$chain"
    $1 -w -t nat -N "$chain" || return 1
    for source in $2; do $1 -w -t nat -A "$chain" -s "${source%,}" ! -o "$dev" -j MASQUERADE || return 1; done
    $1 -w -t nat -I POSTROUTING -j "$chain"
}

# filter_tables IPTABLES: passes what their policy would drop.
filter_tables() {
    add_line "$state.made" "filter-$1"
    drop_chain "$1" filter FORWARD "$chain"
    $1 -w -N "$chain" || return 1
    # Not every kernel has this one.
    [ "$1" = ip6tables ] || $1 -w -A "$chain" -o "$dev" -m length --length 20 -j DROP 2>/dev/null
    [ "$inbound" = yes ] || $1 -w -A "$chain" -o "$dev" -m conntrack ! --ctstate ESTABLISHED,RELATED -j DROP || return 1
    $1 -w -A "$chain" -o "$dev" -j ACCEPT && $1 -w -A "$chain" -i "$dev" -j ACCEPT || return 1
    $1 -w -I FORWARD -j "$chain"
}

# pass FAMILY IPTABLES SOURCES
pass() {
    if uses_nft; then
        step "$1 NAT" nat_nft "$1" "$3"
        # Whoever uses iptables, too, may drop what nft has passed. To ask would make its table.
        has "$2" || return 0
        nft list chain "$1" filter FORWARD >/dev/null 2>&1 || grep -qx filter "/proc/net/$1_tables_names" 2>/dev/null || return 0
    else
        has "$2" || fail "$1 NAT: there is neither nft nor $2"
        step "$1 NAT" nat_tables "$2" "$3"
    fi
    step "$1 forwarding" filter_tables "$2"
}

take_back() {
    for family in ip ip6; do
        made "nft-$family" && nft delete table "$family" "$table" 2>/dev/null
    done
    for tables in iptables ip6tables; do
        made "nat-$tables" && drop_chain "$tables" nat POSTROUTING "$chain"
        made "filter-$tables" && drop_chain "$tables" filter FORWARD "$chain"
    done
    # Also one that sshd still holds: who has it at the other end hears so, and opens another.
    if is_the_same "$state.device" || is_the_same "$state.index"; then
        ip link delete dev "$dev" 2>/dev/null
    fi
    rm -f "$state.id" "$state.watch" "$state.index" "$state.device" "$state.made" "$state.sh"
    [ -n "$(tunnels)" ] || restore
    guard
    [ -n "$(tunnels)" ] || rm -f "$dir/changed" "$dir/opened4" "$dir/opened6"
}

undo() {
    until lock; do sleep 1; done
    take_back
    unlock
}

# Tunnels that nobody watches any more, and those of the same client, whose connection is another one now.
reap() {
    for file in "$dir"/*.sh; do
        other=${file%.sh}
        [ -f "$other.id" ] && [ "$other" != "$state" ] || continue
        whose=$(get "$other.id")
        if [ "$whose" = "$id" ] || ! [ -d "/proc/$(get "$other.watch")" ]; then sh "$file" undo "$whose" >/dev/null; fi
    done
}

begin() {
    reap
    lock || fail "lock: another set-up in $dir does not end"
}

# For who may not make a device through sshd: it is made for them. Nobody holds it yet.
prepare() {
    begin
    [ -z "$(link)" ] || fail "device: $dev is there already"
    echo "$id" >"$state.id"
    step "device" ip tuntap add dev "$dev" mode "$kind" user "$owner"
    find_index || fail "device: $dev is not there"
    echo "$index" >"$state.device"
    echo "$index" >"$state.index"
    step "link" ip link set dev "$dev" up
    start_watch 10
}

setup() {
    begin
    attempt find_index || fail "device: there is no $dev"
    echo "$id" >"$state.id"
    echo "$index" >"$state.index"
    step "link" ip link set dev "$dev" mtu "$mtu" up
    attempt is_held || fail "device: nobody holds $dev open"
    step "IPv4 address" ip -4 addr flush dev "$dev"
    step "IPv4 address" ip addr add "$far4" peer "$ours4" dev "$dev"
    for net in $back4; do step "IPv4 route" ip route add "${net%,}" dev "$dev"; done
    attempt leads_back "$ours4" || fail "IPv4 address: $ours4 leads elsewhere than to $dev; give another --tunnel-address"
    [ -z "$ours6" ] || address6
    note4
    [ -z "$ours6" ] || note6
    step "guard" guard
    pass ip iptables "$ours4${back4:+, $back4}"
    [ -z "$ours6" ] || pass ip6 ip6tables "$ours6${back6:+, $back6}"
    open4 || fail "IPv4 forwarding: the settings in $v4 cannot be changed"
    [ -z "$ours6" ] || open6 || fail "IPv6 forwarding: the settings in $v6 cannot be changed"
    start_watch 2
}

address6() {
    step "IPv6 address" ip -6 addr flush dev "$dev" scope global
    # Nobody else is on this link. Not every busybox knows nodad.
    ip -6 addr add "$far6" peer "$ours6" dev "$dev" nodad 2>/dev/null ||
        step "IPv6 address" ip -6 addr add "$far6" peer "$ours6" dev "$dev"
    for net in $back6; do step "IPv6 route" ip -6 route add "${net%,}" dev "$dev"; done
    attempt leads_back "$ours6" || fail "IPv6 address: $ours6 leads elsewhere than to $dev"
}

# Of two tunnels with one address at our end only the first would work. The kernel adds a route of IPv6 a moment later.
leads_back() {
    case "$(ip route get "$1" 2>/dev/null) " in
    *" dev $dev "*) ;;
    *) return 1 ;;
    esac
}

# start_watch MISSES
start_watch() {
    rm -f "$state.watch"
    leader=
    has setsid && leader=setsid
    $leader sh "$dir/$dev.sh" watch "$1" </dev/null >/dev/null 2>&1 &
    attempt test -s "$state.watch" || fail "watchdog: it does not start"
    drops "$dev|$kind[*]" | sed "s/^/warning forward /"
    unlock
    echo done
}

# watch MISSES: so many seconds without anybody who holds the device, and it is taken back.
watch() {
    trap "" HUP
    trap "is_watching && undo; exit 0" TERM INT
    echo $$ >"$state.watch"
    most=$1
    misses=0
    while is_watching; do
        if is_held; then
            misses=0
            most=2
        else
            misses=$((misses + 1))
            [ $misses -lt "$most" ] || { undo; return; }
        fi
        sleep 1
    done
}

is_watching() { [ "$(get "$state.watch")" = $$ ]; }

main() {
    cd / || exit 1
    case $1 in
    prepare) prepare ;;
    setup) setup ;;
    watch) watch "$2" ;;
    undo)
        [ "$(get "$state.id")" != "$2" ] || undo
        echo done
        ;;
    esac
}

main "$@"
exit
