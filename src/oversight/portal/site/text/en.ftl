# The portal in English. Fluent (projectfluent.org): a translator changes what stands right of the equals sign, and nothing left of it.
# { $n } and the like are filled in by the portal; numbers and dates come written as English has them.

### The frame

tagline = Who asks whom about us
language = Language
menu = Main menu
skip = Skip to the content
nav-overview = Overview
nav-exchanges = Exchanges
nav-grants = Who may ask whom
nav-bodies = State bodies
nav-my-data = My data
nav-open-data = Open data
title-overview = How state bodies exchange data
title-exchanges = Exchanges
title-exchange = Exchange
title-grants = Who may ask whom
title-bodies = State bodies
title-body = State body
title-my-data = My data
title-open-data = Open data
title-missing = No such page
missing = There is nothing at this address.
foot-what = Every exchange of data between state bodies is written to a public log at both ends before it takes place. This page shows these logs. It holds no personal data: only who asked whom, for what, on which legal basis, when, and how it ended.
foot-trust = Nothing here has to be believed: your browser can check every exchange against the logs' signatures, and anybody can download everything.
loading = Reading the logs…
shown = { $title }: shown
fault = This cannot be shown.
yes = yes
no = no
none = Nothing.
any = any
save-csv = Save as CSV
show-table = Show as a table
show-more = { $n ->
    [one] Show one more
   *[other] Show { $n } more
}
age-seconds = { $n ->
    [one] a second ago
   *[other] { $n } seconds ago
}
age-minutes = { $n ->
    [one] a minute ago
   *[other] { $n } minutes ago
}
age-hours = { $n ->
    [one] an hour ago
   *[other] { $n } hours ago
}
age-days = { $n ->
    [one] a day ago
   *[other] { $n } days ago
}

### Words

time = Time
day = Day
count = Number
body = State body
asks = Asks
is-asked = Is asked
what-for = What for
service = Service
method = Method
methods = What may be asked
all-methods = everything that the service offers
basis = Legal basis
law = Law and article
reason = Reason
outcome = Outcome
class = Publication
status = gRPC status
exchange = Exchange
numbers = Numbers
nobody-named = not named
exchanges-label = Exchanges
refused-label = Of these, refused
sealed-entries = Sealed entries
outcome-OK = Answered
outcome-ERROR = Answered with an error
outcome-REFUSED = Refused
outcome-FAILED = No answer
outcome-none = Open
class-PUBLIC = public
class-DELAYED = published with a delay
class-SEALED = sealed
class-none = not said
kind-REQUEST_SENT = Request sent
kind-REQUEST_RECEIVED = Request received
kind-RESPONSE_SENT = Answer sent
kind-RESPONSE_RECEIVED = Answer received
kind-REFUSED = Request refused
kind-FAILED = Came to no answer
kind-SUBJECTS = More people, or fields, recorded
kind-AUDIT = An auditor looked
kind-REQUEST_COMPLETED = Request sent to its end
kind-ERASURE = Personal data destroyed
kind-OPENED = Opened after its delay
kind-EVIDENCE = Evidence against another log
reason-none = none is given
reason-GRANT_MISSING = No permission
reason-METHOD_NOT_GRANTED = Not permitted to ask for this
reason-GRANT_EXPIRED = The permission has expired
reason-GRANT_NOT_YET_VALID = The permission is not yet in force
reason-RATE_LIMITED = Too many questions
reason-OUTBOUND_NOT_ALLOWED = Its own body does not allow it to ask
reason-PURPOSE_REQUIRED = No legal basis was named
reason-PURPOSE_NOT_ALLOWED = Not on this legal basis
reason-PUBLICATION_TOO_OPEN = Would be published too openly
reason-SERVICE_UNKNOWN = Nobody offers this service
reason-METHOD_UNKNOWN = The service has no such method
reason-PROVIDER_UNKNOWN = No such body or system
reason-CANCELLED = Broken off by the caller
reason-DEADLINE_EXCEEDED = No answer in time
reason-PEER_UNREACHABLE = The other body was out of reach
reason-BACKEND_UNREACHABLE = The system was out of reach
reason-INTERRUPTED = The node stopped in between
reason-PROOF_MISSING = The other body did not prove that it had logged it
reason-PROOF_INVALID = The other body's proof does not hold
reason-UNKNOWN_FIELD = A field that is not in the type
reason-RULE_VIOLATED = A rule of the type is broken
reason-MESSAGE_MALFORMED = A malformed message

### Overview

overview-lead = State bodies ask each other for data about citizens, firms and land. Here you see how often, between whom, on what legal basis, and whether both sides tell the same story.
verdict-good = The logs hold, and both sides agree
verdict-bad = Something does not match
verdict-plain = The logs are signed
verdict-agreed = { $n ->
    [one] Of one exchange
   *[other] Of { $n } exchanges
} the logs of both sides tell the same; none is missing or differs.
verdict-wrong = { $n ->
    [one] One exchange is missing from one side's log or told differently.
   *[other] { $n } exchanges are missing from one side's log or told differently.
}
verdict-logs-wrong = A log does not hold, or cannot be reached.
verdict-no-monitor = No monitor's report is shown here: each exchange can be compared on its own page.
verdict-signed = { $n ->
    [one] The log carries its body's signature.
   *[other] All { $n } logs carry their bodies' signatures.
}
verdict-unsigned = { $n ->
    [one] One log's checkpoint is not signed as it must be.
   *[other] { $n } logs' checkpoints are not signed as they must be.
}
verdict-witnessed = Independent witnesses have cosigned each.
verdict-unwitnessed = Too few witnesses have cosigned.
monitor-looked = The monitor compared the logs { $age }.
period = Period
period-30 = 30 days
period-92 = 3 months
period-all = All
some-missing = Not everything is here.
some-missing-told = { $n ->
    [one] One log's summary cannot be read.
   *[other] { $n } logs' summaries cannot be read.
}
no-summaries = These logs publish no summaries, so nothing can be counted here. Exchanges can still be searched and checked.
exchanges-made = exchanges
answered-share = answered
answered-note = { $n } in all, answers with an error among them
refused-share = refused
refused-note = { $n } in all
sealed-share = of entries sealed
sealed-note = { $sealed } sealed, { $delayed } with a delay: counted, not shown
flow-title = Who asks whom
flow-note = On the left who asks, on the right who is asked; the thicker the band, the more exchanges. Follow a band to see them.
flow-note-cut = On the left who asks, on the right who is asked. The { $n } largest are drawn; the table has all.
flow-told = Who asks whom: { $n ->
    [one] one pair of bodies
   *[other] { $n } pairs of bodies
}. The table below has the same.
flow-band = { $from } asks { $to }: { $n }, of which { $refused } refused
days-title = Exchanges by day
months-title = Exchanges by month
days-note = Days in UTC.
days-told = { $n ->
    [one] Exchanges of one day
   *[other] Exchanges of { $n } days
}; at most { $most } { $day }. The table below has the same.
basis-title = On what legal basis
all-time-note = Since the logs began. Refused requests have no basis that held.
reason-title = Why requests were refused
reason-note = Since the logs began. A refusal shows that the rules work; many of them show that somebody tries.
logs-title = The logs
logs-note = Each body signs its log's latest state, the checkpoint. Witnesses sign too, once they have seen that nothing earlier was changed.
log-size = { $n ->
    [one] One entry
   *[other] { $n } entries
}
log-signed = Signed by the body
log-unsigned = NOT signed as it must be
log-signature-unknown = This browser cannot check the signature
log-witnessed = Witnessed by { $names }, { $age }
log-unwitnessed = No witness
log-unreadable = The log cannot be read.
log-named = log { $origin }
counted-note = Counted by the bodies' own nodes from what they publish; the newest entry is of { $date }. Whoever doubts the numbers can count again from the logs.

### Exchanges

exchanges-lead = Every request from one body to another, the newest first. Open one to see what both sides wrote, and have your browser check it.
filter = Filter
filter-consumer = Who asks
filter-provider = Who is asked
filter-body = Body, on either side
filter-service = Service
filter-method = Method
filter-outcome = Outcome
filter-basis = Legal basis
filter-reason = Reason of refusal
filter-from = From day
filter-until = Until day
filter-id = Number of the exchange
filter-more = More
search = Search
search-clear = Clear
searching = { $n ->
    [one] Searching the logs: one bundle read…
   *[other] Searching the logs: { $n } bundles read…
}
results = Exchanges found
found = { $n ->
    [0] Nothing found
    [one] One exchange
   *[other] { $n } exchanges
}
found-before = before { $date }
found-halted = Searched back to { $date }.
nothing-found = Nothing in the logs fits.
nothing-yet = Nothing fits so far. There is more to search.
search-on = Search further back
older = Older
newest = Newest
search-took = Found in the logs themselves in { $seconds } s, reading { $size }.
hidden-note = Sealed exchanges are counted in the overview and not shown here.
not-an-id = This is no number of an exchange: 36 characters, like 019adb2e-….
log-failed = The log { $origin } could not be read here:

### One exchange

exchange-heading = { $method }, { $day }
exchange-unknown = No log here has this exchange.
exchange-unknown-why = By its number it was made on { $date }. It may be sealed, or delayed and not yet open, or of bodies whose logs are not here.
exchange-strange = Entry { $index } of { $origin } does not tell of this exchange.
exchange-strange-told = Either the address is wrong, or the entry was changed. The check below tells which.
exchange-sentence = On { $date }, the { $consumer } asked the { $provider } for “{ $method }”.
exchange-sentence-basis = The legal basis: { $law }.
exchange-sentence-no-basis = No legal basis is recorded.
exchange-sentence-OK = The question was answered.
exchange-sentence-ERROR = The answer was an error.
exchange-sentence-REFUSED = The request was refused, and nothing was passed on. Reason: { $reason }.
exchange-sentence-FAILED = It came to no answer. Reason: { $reason }.
exchange-sentence-open = How it ended is not recorded here.
agree-same = Both sides tell the same
agree-same-told = The log of the body that asked and the log of the body that answered name the same systems, the same method and the same outcome.
agree-never-left = Refused before it left
agree-never-left-told = The asking body's own node refused the request; the other body never received it, and its log has nothing of it.
agree-refused-and-sent = The two logs contradict each other
agree-refused-and-sent-told = The asking body says that it refused the request itself, and yet the other body's log has it.
agree-one-log = Only one side's log is here
agree-one-log-told = The log of { $member } is not part of this portal, so the two sides cannot be compared here.
agree-same-member = Within one body
agree-same-member-told = Both systems are of one body, so there is one log and nothing to compare.
agree-failed = No answer reached the asking side
agree-failed-told = The connection broke, the caller hung up or time ran out. Each side tells what it saw; that they differ is in the nature of it.
agree-never-arrived = The request did not arrive
agree-never-arrived-told = The asking side could not bring it to an answer, and the other side's log has nothing of it. That is not wrong by itself.
agree-missing = One side's log lacks it
agree-missing-told = { $member } has not published an entry of this exchange. Within some minutes that may be delay; later it is a gap that needs an explanation.
agree-hidden = It cannot be compared whole
agree-hidden-told = { $member } hides entries of that time, as its rules of publication say; one of them may be the one that is missing here. Only whoever may see it can compare.
agree-open = One side has not closed it
agree-open-told = { $member } has recorded the beginning of this exchange and not its end. It may still be going on.
agree-different = The two sides tell different stories
agree-different-told = What differs: { $parts }.
agree-unreadable = It cannot be compared
agree-unreadable-told = No entry of this exchange can be read here.
part-consumer = who asked
part-provider = who was asked
part-service = the service
part-method = the method
part-outcome = the outcome
part-status = the status
part-basis = the legal basis
side-asking = The side that asked
side-answering = The side that was asked
side-both = Both sides
side-no-log = its log is not part of this portal
side-no-entry = Its log has no entry of this exchange here.
side-CONSUMER = the asking body's node
side-PROVIDER = the asked body's node
refused-by = Ended by
in-log = Place in the log
in-log-at = entry { $index } of { $origin }
committed = What else was committed
committed-told = The contents of question and answer, the person concerned, the official and the case number are not published. The entry carries one number that is computed from all of them with secret salts: nobody can guess them from it, and the body cannot later claim that they were others. Whoever has a right to see one can be given an opening of it, and check it under “My data”.
commitment = Commitment
schema = Type, by SHA-256
other-checkpoint = Other side's log, as seen by this side
entry-bytes = Size
entry-bytes-told = { $n ->
    [one] one byte
   *[other] { $n } bytes
}

### Verify

verify-title = Check it yourself
verify-lead = Your browser fetches the entries and the hash tiles of both logs, computes the proofs, and checks the signatures. No server is asked for its opinion.
verify = Verify
verify-again = Verify again
verify-log = Log { $origin }
verify-trust = What this check rests on
verify-trust-told = It rests on the logs' and witnesses' keys that are written in this portal, and on your browser. Whoever could change this page could change the keys too. For a check that does not depend on this page, take the keys from the federation's council and use one of the independent tools: see Open data.
verified-good = All { $n } checks hold. These entries stand in the logs exactly so.
verified-warn = { $n ->
    [one] What could be checked holds. One thing could not be checked.
   *[other] What could be checked holds. { $n } things could not be checked.
}
verified-bad = { $n ->
    [one] One check FAILED. What is shown is not what the log's signature stands for.
   *[other] { $n } checks FAILED. What is shown is not what the log's signature stands for.
}
state-good = holds
state-bad = does not hold
state-warn = not checked
state-busy = checking
verify-key = The log's key
verify-key-good = The directory, version { $version }, names this key for the log of { $member }.
verify-key-unknown = No directory that is published here names this key: compare it with the council's directory yourself.
verify-key-bad = The key in this portal is malformed.
verify-signature = The body's signature
verify-signature-good = The body has signed this checkpoint: the root over { $size } entries.
verify-signature-bad = The signature is wrong. The checkpoint was changed after it was signed, or somebody else signed it.
verify-signature-none = The checkpoint carries no signature of this log's key.
verify-checkpoint-unreadable = The checkpoint cannot be read.
verify-no-ed25519 = This browser cannot check Ed25519 signatures. A current one can.
verify-witnesses = Independent witnesses
verify-witnesses-good = { $n ->
    [one] One witness has
   *[other] { $n } witnesses have
} cosigned this checkpoint, { $age }: they saw that the log only grew.
verify-witnesses-bad = A witness's signature is wrong: it does not belong to this checkpoint.
verify-witnesses-few = Fewer witnesses have cosigned than the policy asks for.
verify-witnesses-none = This portal names no witnesses.
verify-not-cosigned = has not cosigned
verify-wrong-cosignature = wrong signature
verify-entry = The entry's hash
verify-entry-good = Entry { $index } has { $n ->
    [one] one byte
   *[other] { $n } bytes
}; its SHA-256 was computed.
verify-entry-beyond = The signed checkpoint does not reach so far: the log does not have this entry.
verify-entry-unreadable = The entry cannot be read where it must be.
verify-tile = The log's own list of hashes
verify-tile-good = The log's hash tile has the same hash at this place.
verify-tile-bad = The hash tile has another hash at this place. The entry or the tile was changed after it was published.
verify-tile-unreadable = A hash tile that is needed cannot be read.
verify-root = The way to the signed root
verify-root-good = { $n ->
    [one] Over one hash
   *[other] Over { $n } hashes
} the way leads from the entry exactly to the signed root. The entry stands in the log that was signed.
verify-root-bad = The way from this entry does not lead to the signed root. What is shown here is not what was signed: an entry or a hash was changed afterwards.

### Who may ask whom

grants-lead = A body may ask another only where the other has permitted it, on a legal basis. These are the permissions, as the bodies that are asked publish them, and how they were used.
grants-counted = { $n ->
    [one] One permission is
   *[other] { $n } permissions are
} listed; not used: { $unused }.
grants-all = All
grants-used = Used
grants-unused = Not used
grants-past = Without permission today
grants-in-force = Permissions
only-categories = only these categories: { $list }
only-fields = only these fields: { $list }
grant-ended = ended
grants-past-title = Asked on grounds that are no longer listed
grants-past-note = Exchanges that took place, and for which no permission is published now: it has ended, was changed, or is of a body whose permissions are not here.
grants-note = Use is counted from the logs up to { $date }; refused requests do not count as use.
all-bodies = all bodies
may-ask = may ask
valid = In force
no-end = without a time limit
from-day = from { $day }
until-day = until { $day }
used = Used
use-none = not used
use-count = { $n ->
    [one] once
   *[other] { $n } times
}
use-days = first { $first }, last { $last }
use-never = never: { $methods }
use-hidden = not shown
use-hidden-told = its exchanges are sealed or delayed
valid-from = In force from
valid-until = In force until
used-count = Used, times
used-first = First used
used-last = Last used

### State bodies

bodies-lead = What each body asks of others, and what others ask of it.
asks-count = questions asked
asked-count = questions received
refused-count = of its questions, refused
log-here = Log in this portal
own-refused = of its questions refused
others-refused = of others' questions refused
its-exchanges = Its exchanges
its-grants = Its permissions
trend-asks = Questions that it asks, by day
trend-asked = Questions that it is asked, by day
asks-whom = Whom it asks
asked-by-whom = Who asks it
asks-what = What it asks for
asked-what = What it is asked for
unusual = Unusual days
unusual-mark = unusual
unusual-told = { $n ->
    [one] one exchange
   *[other] { $n } exchanges
}; on this weekday, in the weeks before, mostly between { $low } and { $high }.
unusual-refused = { $n ->
    [one] one refusal
   *[other] { $n } refusals
}; on this weekday, in the weeks before, mostly between { $low } and { $high }.
unusual-above = Far more than usual.
unusual-below = Far fewer than usual.
unusual-none = No day stands out from the same weekday of the weeks before it.
unusual-too-short = There are too few days yet to say what is usual: at least four weeks before the day in question.
unusual-how = How a day is marked
unusual-how-told = Each day is compared with the same weekday of the eight weeks before. Of these we take the middle half: a quarter had fewer, a quarter had more. A day is marked if it lies further outside that middle than three times its width (Tukey's outer fences), by at least half, and by at least 20. A mark is no accusation: a holiday, a deadline or a new service explains many. It says where to look.

### My data

mydata-lead = You have a right to know which state body asked for data about you. The public log does not name you; with your help it can be opened for you alone.
mydata-how = How you learn who asked about you
mydata-ask = Ask
mydata-ask-told = Go to the public service centre, or to the portal of state services, with your identity document, and ask for the exchanges about you. Each body that keeps a log answers for its own.
mydata-answer = Receive openings
mydata-answer-told = For each exchange you receive a file, an opening. It proves that a certain entry of the public log is about you, and opens nothing else. That you asked is written to the log as well, without your name.
mydata-check = Check
mydata-check-told = Check the file below, or with a program of your choice. A body that leaves out or invents something cannot make the check hold.
mydata-not = What you should know
mydata-not-hidden = Exchanges that are sealed by law, or whose publication is delayed, are not told yet; they are counted all the same.
mydata-not-erased = When the time for keeping personal data is over, the keys are destroyed. Then nobody can open the entry any more, and the public part stays.
mydata-not-nobody = Nobody can find you in the public log, even who knows your personal number.
opening-title = Check an opening
opening-lead = Somebody has given you a file that says: this entry of the log is about you (or about this official, case, or answer). Here you learn whether that is so.
opening-choose = Choose the file (opening.json)
opening-stays = The file stays on your device. The check is computed in your browser and works without a network; where there is one, only the entry's place in the public log is looked up.
opening-unreadable = This file cannot be checked.
opening-format = It is not an opening file (kopuro-opening/v1), or a part of it is malformed.
opening-too-large = It is larger than an opening can be.
opening-log-unknown = It is of the log { $origin }, whose key is not in this portal.
opening-signed = The log { $origin } has signed the checkpoint in the file, over { $size } entries.
opening-in-log = The entry in the file is entry { $index } of that log.
opening-not-in-log = The entry in the file does not stand in the signed log. The file was changed, or is false.
opening-field = Opened: { $field }
opening-committed = The log's entry was computed from this very value.
opening-not-committed = The entry was computed from another value. What the file says is not what was recorded.
opening-published = The log as it is published now
opening-published-good = It has this very entry at this place.
opening-published-bad = It has another entry at this place. The log's keeper has signed two histories: keep the file, it is evidence.
opening-log-shorter = It is shorter than it was. The log's keeper has taken something back: keep the file, it is evidence.
opening-offline = It could not be reached. The file's own proof holds without it.
opening-holds = The opening holds
opening-fails = The opening does NOT hold
opening-hidden = The rest of this entry is not open: the file has no opening of what it hides.
slot-request-digest = digest of the question
slot-response-digest = digest of the answer
slot-subject = person concerned
slot-user = acting official
slot-case = case number
slot-address = network address of the caller
slot-sizes = sizes
slot-query = what was looked for
slot-further = one more person, or a field
slot-hidden = the hidden part of the entry
sizes-told = question: { $sent } messages, { $sentBytes } bytes; answer: { $got } messages, { $gotBytes } bytes

### Open data

opendata-lead = All that this portal shows comes from files that anybody may download, use and check.
downloads = Downloads
address = Address
key = Key
files-now = Now:
no-open-data = This log publishes no daily files.
no-days-yet = No day is over yet: daily files come after midnight UTC.
days-of = Daily files of { $origin }
rows = Rows
checksum = Checksum
checksum-check = Check
checksum-good = matches
checksum-bad = differs
dictionary = Dictionary
dictionary-note = What the columns of the daily files and of the list of days mean.
file = File
field = Field
type = Type
meaning = Meaning
how-to-verify = How to verify all of it
how-to-verify-told = The logs are published as C2SP tlog-tiles, so that tools which nobody here wrote can read them. Every entry can be hashed anew up to the signed checkpoint.
keys-from = Take the key from the federation's council, not from here, if it is the keeper of this page whom you want to check.
citation = How to cite
citation-told = Name the log, its size and its root: so that everybody can see later that you spoke of this very state.
citation-head = Kopuro, published logs of state bodies, read { $date }:
citation-size = { $n ->
    [one] one entry
   *[other] { $n } entries
}
licence = The data may be used freely, with its source named.
