# drops NAMES: chains of others that drop what is forwarded, and that nobody can overrule: family, table and name, one for each line.
# What iptables drops is passed by us; a chain with a rule for a device of NAMES (an extended regular expression) passes it itself.
# $as stands in front of what needs root.
drops() {
    $as nft list chains 2>/dev/null </dev/null | while read -r word family name rest; do
        case "$word $family $name $rest" in
        table*) of="$family $name" ;;
        chain*) its_chain=$family ;;
        *"hook forward"*"policy drop"*)
            case "$of $its_chain" in
            "ip filter FORWARD" | "ip6 filter FORWARD") command -v iptables >/dev/null 2>&1 && continue ;;
            bridge*) continue ;;
            esac
            $as nft list chain $of "$its_chain" 2>/dev/null </dev/null | grep -qE "ifname .($1). .*accept" && continue
            echo "$of $its_chain"
            ;;
        esac
    done
}

