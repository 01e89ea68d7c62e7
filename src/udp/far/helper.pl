use strict;
use Errno qw(EAGAIN EWOULDBLOCK EINTR ENOBUFS ENOMEM);
use Fcntl;
use Socket qw(:DEFAULT inet_pton pack_sockaddr_in6);

my ($DATA, $ERROR, $CLOSE, $OPEN) = (0, 1, 2, 3);
my ($REFUSED, $HOST, $NETWORK, $FILTERED, $NO_ROOM, $OTHER) = (1, 2, 3, 4, 5, 6);
my ($FULL, $NOW, $ERRORS, $linux) = (262144, MSG_DONTWAIT, 0x2000, $^O eq 'linux');
my %codes;
my %names = (ECONNREFUSED => $REFUSED, EHOSTUNREACH => $HOST, EHOSTDOWN => $HOST, ENETUNREACH => $NETWORK,
    EAFNOSUPPORT => $NETWORK, EADDRNOTAVAIL => $NETWORK, EACCES => $FILTERED, EPERM => $FILTERED,
    EMFILE => $NO_ROOM, ENFILE => $NO_ROOM, ENOBUFS => $NO_ROOM, ENOMEM => $NO_ROOM);
for my $name (keys %names) {
    my $number = Errno->can($name);
    $codes{&$number()} = $names{$name} if $number;
}
my (%flows, %by_fd);
my ($heard, $said, $readers) = ('', "underpass-udp-1\n", '');

sub tell_near { my ($flow, $kind, $data) = @_; $said .= pack('nNC', length($data), $flow, $kind) . $data }
sub later { $! == EAGAIN || $! == EWOULDBLOCK || $! == EINTR }
sub tell_error { my ($flow) = @_; tell_near($flow, $ERROR, chr($codes{$! + 0} || $OTHER)) }
# A full queue of the server's takes a datagram, and not the flow.
sub failed { tell_error($_[0]) unless later() || $! == ENOBUFS || $! == ENOMEM }

sub close_flow {
    my $s = delete $flows{$_[0]} or return;
    delete $by_fd{fileno $s};
    vec($readers, fileno $s, 1) = 0;
    close $s;
}

sub open_flow {
    my ($flow, $host, $port) = @_;
    close_flow($flow);
    my $six = $host =~ /:/;
    my $to = $six ? pack_sockaddr_in6($port, inet_pton(AF_INET6, $host)) : sockaddr_in($port, inet_aton($host));
    my $s;
    unless (socket($s, $six ? AF_INET6 : AF_INET, SOCK_DGRAM, 0) and connect($s, $to)) {
        tell_error($flow);
        tell_near($flow, $CLOSE, '');
    } else {
        # IPV6_RECVERR, IP_RECVERR: unreachable hosts and networks are heard of, too.
        setsockopt($s, $six ? 41 : 0, $six ? 25 : 11, 1) if $linux;
        ($flows{$flow}, $by_fd{fileno $s}) = ($s, $flow);
        vec($readers, fileno $s, 1) = 1;
    }
}

sub forget_errors { my ($s) = @_; my $none; 1 while $linux && defined recv($s, $none, 1, $NOW | $ERRORS) }

sub send_data {
    my ($flow, $data) = @_;
    my $s = $flows{$flow} or return;
    # An error of an earlier datagram is told in place of sending: then once more.
    for (1, 2) {
        return if defined send($s, $data, $NOW);
        failed($flow);
        forget_errors($s);
    }
}

sub receive {
    my ($flow, $s) = ($_[0], $flows{$_[0]});
    for (1 .. 32) {
        my $data;
        unless (defined recv($s, $data, 65536, $NOW)) {
            failed($flow);
            return forget_errors($s);
        }
        tell_near($flow, $DATA, $data);
    }
}

sub hear {
    my $got = sysread(STDIN, $heard, 65536, length $heard);
    exit if defined $got ? $got == 0 : !later();
    my $at = 0;
    while (length($heard) - $at >= 7) {
        my ($size, $flow, $kind) = unpack('nNC', substr($heard, $at, 7));
        last if length($heard) - $at < 7 + $size;
        my $data = substr($heard, $at + 7, $size);
        $at += 7 + $size;
        if ($kind == $DATA) { send_data($flow, $data) }
        elsif ($kind == $CLOSE) { close_flow($flow) }
        elsif ($kind == $OPEN) { open_flow($flow, split / /, $data) }
    }
    substr($heard, 0, $at) = '';
}

sub say_it {
    my $done = syswrite(STDOUT, $said, 65536);
    if (defined $done) { substr($said, 0, $done) = '' } elsif (!later()) { exit }
}

binmode STDIN;
binmode STDOUT;
for my $end (\*STDIN, \*STDOUT) { fcntl($end, F_SETFL, fcntl($end, F_GETFL, 0) | O_NONBLOCK) }
vec($readers, 0, 1) = 1;
while (1) {
    say_it() if length $said;
    # While nobody reads what is said, the sockets' own buffers fill, and drop.
    my ($read, $write) = (length($said) >= $FULL ? "\1" : $readers, length($said) ? "\2" : undef);
    next if select($read, $write, undef, undef) < 1;
    for my $fd (keys %by_fd) {
        next unless $fd < 8 * length $read and vec($read, $fd, 1);
        receive($by_fd{$fd}) if defined $by_fd{$fd};
    }
    hear() if vec($read, 0, 1);
}
