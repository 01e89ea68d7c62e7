six() {
    if command -v ping6 >/dev/null; then ping6 "$@"; else ping "$@"; fi
}
one() {
    case $2 in *:*) six -q -c 1 -W 2 "$2" ;; *) ping -q -c 1 -W 2 "$2" ;; esac >/dev/null 2>&1 </dev/null
    echo "$1 $?"
}
echo underpass-ping-1
while read -r number host; do (one "$number" "$host" &); done
