bytes() { dd bs=1 count="$1" 2>/dev/null; }
octal() { od -An -v -to1 | tr -d '\n'; }
# In one write, so that those who say something at the same time do not mix.
say() { printf "$(printf '\\%03o' "$@")$text" | dd obs=8192 2>/dev/null; }
answer() {
    text=$(dd bs=65536 count=1 2>/dev/null | octal)
    set -- "$@" $text
    [ $# -gt 4 ] && [ $# -le 4004 ] || return
    size=$(($# - 4))
    text=$(shift 4; printf '\\%s' "$@")
    say $((size / 256)) $((size % 256)) "$1" "$2" "$3" "$4" 0
}
question() {
    printf "$(printf '\\%s' $data)" | ask "$host" "$port" 2>/dev/null | answer "$1" "$2" "$3" "$4"
    text= && say 0 0 "$1" "$2" "$3" "$4" 2
}
printf 'underpass-udp-1\n'
while set -- $(bytes 7 | od -An -v -tu1) && [ $# = 7 ]; do
    size=$(($1 * 256 + $2))
    case $7 in
    3) set -- $(bytes $size) && host=$1 port=$2 ;;
    0) data=$(bytes $size | octal) && (question "$3" "$4" "$5" "$6" </dev/null &) ;;
    *) [ $size = 0 ] || bytes $size >/dev/null ;;
    esac
done
