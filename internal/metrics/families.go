package metrics

import "github.com/prometheus/client_golang/prometheus"

// families are all metrics. This is the only place that says their names, types and labels.
type families struct {
	all []*Family

	build, ready, trouble, inUse *Family

	requests, refused, firstByte, took, sent, pulls, savedPulls, savedBytes *Family

	asked, askedTook, spentPulls, received, limited, failovers, probes *Family
	transfers, questions, up, breaker, failures, paused                *Family

	limit, remaining, window, forecast, returns, rate, elsewhere, held, told, reserve, low *Family

	fills, filling, verifying, readers, waiting, resumes, passed, mismatches *Family

	store, storeMost, blobs, blobBytes, repositories, tags, links, moved                *Family
	pinnedTags, pinnedBlobs, pinnedBytes, pinnedMost                                    *Family
	evicted, evictedBytes, evictedAge, again, againBytes, quarantined, quarantinedBytes *Family
	degraded, diskFree, diskSize                                                        *Family

	scrubDone, scrubBehind, scrubOldest, scrubInterval, scrubEnded *Family

	indexBytes, indexTook *Family

	s3, s3Took, s3Objects, s3Bytes, s3Queued, s3QueuedBytes, s3Degraded, s3Unsaved, s3Damaged, s3RefsBehind, s3RefsDamaged *Family

	events, notified, notifying    *Family
	rulings, judged, policyWaiting *Family

	fleetTags, fleetFetches, fleetBytes, fleetTakeovers, fleetMembers, fleetDuplicates, fleetDisbelieved, fleetFailed, fleetDegraded *Family
}

func (f *families) add(kind, name, help string, labels []string) *Family {
	one := &Family{Name: "forebay_" + name, Help: help, Type: kind, Labels: labels,
		desc: prometheus.NewDesc("forebay_"+name, help, labels, nil)}
	f.all = append(f.all, one)
	return one
}

func (f *families) counter(name, help string, labels ...string) *Family {
	return f.add("counter", name, help, labels)
}

func (f *families) gauge(name, help string, labels ...string) *Family {
	return f.add("gauge", name, help, labels)
}

func (f *families) histogram(name, help string, labels ...string) *Family {
	return f.add("histogram", name, help, labels)
}

func newFamilies() (f families) {
	f.build = f.gauge("build_info", "Always 1; the labels say which build this is.", "version", "revision", "go_version")
	f.ready = f.gauge("ready", "1 while the mirror takes traffic, as /readyz says.")
	f.trouble = f.gauge("trouble", "1 for each thing that is wrong, as forebay status tells it: by kind (limit, budget, upstream, endpoint, repository, disk, index, bucket, room, verification, gone, clients, configuration), severity (critical, warning, notice) and upstream, which is empty where none is concerned.", "kind", "severity", "upstream")
	f.inUse = f.gauge("images_in_use", "Images that somebody pulled within a week, looked through every ten minutes: complete could be served if their registries went away now, incomplete could not.", "state")
	f.events = f.counter("events_total", "What happened to what is kept and to the upstreams, by kind: tag_moved, evicted, degraded, upstream_failing, config_reloaded, config_refused and so on.", "kind")
	f.fleetTags = f.counter("fleet_tags_total", "Tags that were to be confirmed, by how: shared (another mirror had been told lately), asked (its registry was asked on behalf of all mirrors), alone (its registry was asked, since the fleet's engine did not answer); only where there is a fleet.", "result")
	f.fleetDuplicates = f.counter("fleet_duplicates_total", "Tags that a registry was asked for although another mirror did.")
	f.fleetDisbelieved = f.counter("fleet_disbelieved_total", "Facts in the fleet's engine that no mirror of ours wrote, or one whose clock is ahead.")
	f.fleetFetches = f.counter("fleet_fetches_total", "Blobs and manifests that were missing, request by request, by role: lead (its registry was asked on behalf of all mirrors), follow (another mirror had it or fetched it), alone (its registry was asked although another mirror may have done so).", "role")
	f.fleetBytes = f.counter("fleet_peer_bytes_total", "Bytes of blobs and manifests between the mirrors of the fleet, by direction: in, out.", "direction")
	f.fleetTakeovers = f.counter("fleet_takeovers_total", "Requests to registries in place of a mirror that led and did not answer.")
	f.fleetMembers = f.gauge("fleet_members", "Mirrors of the fleet that are there, this one included.")
	f.fleetFailed = f.counter("fleet_failed_calls_total", "Calls to the fleet's engine that failed or took too long.")
	f.fleetDegraded = f.gauge("fleet_degraded", "1 while the fleet's engine fails and is left alone.")
	f.notified = f.counter("notifications_total", "Messages to targets of notify by how they ended: sent, failed (it did not take them, however often they were tried), dropped (too many waited, or the mirror ended).", "target", "result")
	f.notifying = f.gauge("notifications_waiting", "Messages that wait for a target.", "target")
	f.rulings = f.counter("policy_rulings_total", "Rulings of policies on tags and digests by result: kept (the tag answers with what it points to), replaced (with another digest), refused (with none), observed (it would be another if all rules were enforced; beside the others).", "result")
	f.judged = f.counter("policy_judge_requests_total", "Requests to judges of policies by result: answered, failed.", "result")
	f.policyWaiting = f.gauge("policy_waiting", "Tags that were asked for since the start and do not answer with the digest that they point to.")
	f.ofClients()
	f.ofUpstreams()
	f.ofBudgets()
	f.ofFills()
	f.ofStore()
	return f
}

func (f *families) ofClients() {
	f.requests = f.counter("requests_total",
		"Requests of clients by what they ask for (manifest, blob, tags, referrers, catalog, ping; browser: refused, whatever it asks for; other) and by result: hit, joined (another request's download was shared), miss, stale, passed (streamed through and not kept), error, none (it was not about content, or the client left before its answer).",
		"upstream", "kind", "result")
	f.refused = f.counter("refused_requests_total",
		"Requests of clients that got nothing because of a bound of the mirror's own: requests, transfers, new, pulls, share and fills are those of one client, reserve is the last share of a registry's limit, queue and connections bound what goes on at once for a registry.",
		"upstream", "limit")
	f.firstByte = f.histogram("request_first_byte_seconds", "Time from a client's request to the head of its answer.", "upstream", "kind", "result")
	f.took = f.histogram("request_duration_seconds", "Time from a client's request to the last byte of its answer.", "upstream", "kind")
	f.sent = f.counter("response_bytes_total", "Bytes of bodies sent to clients, those of errors included.", "upstream", "kind")
	f.pulls = f.counter("pulls_total", "GETs of manifests that clients got an answer to: what a registry would have counted as pulls.", "upstream")
	f.savedPulls = f.counter("saved_pulls_total", "Of the pulls of clients, those that were answered without a pull upstream: hit, joined or stale.", "upstream")
	f.savedBytes = f.counter("saved_bytes_total", "Bytes that clients got and no registry sent: response bytes without those of errors, minus bytes from the upstream, as much as it ever was.", "upstream")
}

func (f *families) ofUpstreams() {
	f.asked = f.counter("upstream_requests_total",
		"Requests to a registry, its token server and where it redirects to, by what they are for (manifest, which registries count; manifest_head, blob, blob_head, list, token, redirect, ping) and how they ended (ok, redirect, unauthorized, denied, not_found, limited, client_error, server_error, failed).",
		"upstream", "kind", "outcome")
	f.askedTook = f.histogram("upstream_request_duration_seconds", "Time until the head of an upstream's answer.", "upstream", "kind")
	f.spentPulls = f.counter("upstream_pulls_total", "GETs of manifests that the registry answered: what it counts as pulls.", "upstream")
	f.received = f.counter("upstream_bytes_total", "Bytes of manifests, blobs and lists that came from the registry and from where it redirects to.", "upstream")
	f.limited = f.counter("upstream_limited_total", "Answers 429 by what was limited: pulls, requests (all of our address), rate (too many at once), blobs (where blobs are redirected to), tokens, repository (one alone).", "upstream", "limit")
	f.failovers = f.counter("upstream_failovers_total", "Requests that an endpoint answered after another had failed.", "upstream")
	f.probes = f.counter("upstream_probes_total", "HEADs that asked whether pulls go through again.", "upstream")
	f.transfers = f.gauge("upstream_transfers", "Blobs that arrive from the registry at this moment.", "upstream")
	f.questions = f.gauge("upstream_questions", "Requests for anything but blobs that wait for the registry at this moment.", "upstream")
	f.up = f.gauge("upstream_up", "0 while most of what the registry is asked for fails, by the answers of the last minute; not there before it was asked.", "upstream")
	f.breaker = f.gauge("upstream_breaker_open", "1 while an endpoint fails so lastingly that it is asked by probes only.", "upstream", "endpoint")
	f.failures = f.gauge("upstream_endpoint_failures", "Requests in a row that an endpoint failed.", "upstream", "endpoint")
	f.paused = f.gauge("upstream_endpoint_paused", "1 while an endpoint refuses all requests of our address.", "upstream", "endpoint")
}

func (f *families) ofBudgets() {
	account := []string{"upstream", "host", "credential"}
	f.limit = f.gauge("budget_limit_pulls", "Pulls that the registry allows a credential in a window.", account...)
	f.remaining = f.gauge("budget_remaining_pulls", "Pulls left when the registry last said.", account...)
	f.window = f.gauge("budget_window_seconds", "Length of the window.", account...)
	f.forecast = f.gauge("budget_forecast_seconds", "Time until no pull is left if it goes on like this; not there when it will not come to that.", account...)
	f.returns = f.gauge("budget_returns_seconds", "Time until some of what is used up comes back; not there when nothing is used up.", account...)
	f.rate = f.gauge("budget_pulls_per_second", "Pulls at present, by this mirror and by others with the same credential.", account...)
	f.elsewhere = f.gauge("budget_elsewhere_pulls", "Pulls of the window that were spent by others with the same credential or address.", account...)
	f.held = f.gauge("budget_paused", "1 while the registry refuses pulls.", account...)
	f.told = f.gauge("budget_told_timestamp_seconds", "When the registry last said what is left.", account...)
	f.reserve = f.gauge("budget_reserve_ratio", "Share of the limit below which the registry is spared.", "upstream")
	f.low = f.gauge("budget_low", "1 while the registry is spared: known tags are served without asking it.", "upstream")
}

func (f *families) ofFills() {
	f.fills = f.counter("fills_total", "Downloads of blobs that have ended: done, failed, wrong (another digest), not_kept (no room, or the disk refused), cancelled.", "outcome")
	f.filling = f.gauge("fills_in_progress", "Downloads of blobs in progress.")
	f.verifying = f.gauge("verifications_in_progress", "Kept blobs whose digest is being computed beside their first sending.")
	f.readers = f.gauge("fill_readers", "Clients that follow a download or a verification.")
	f.waiting = f.gauge("fill_readers_waiting", "Of those, the ones that have all that has arrived.")
	f.resumes = f.counter("fill_resumes_total", "Downloads that went on where they had stopped: after a transfer broke off (broken), or from what an earlier download had left (restart).", "cause")
	f.passed = f.counter("passed_readers_total", "Clients that were served past the store.")
	f.mismatches = f.counter("verification_failures_total", "Contents without their digest: sent so by an upstream, or found in the store, by a client or by reading it in the background.", "source")
}

func (f *families) ofStore() {
	f.store = f.gauge("store_bytes", "What the storage folder holds and has promised to downloads, index included.")
	f.storeMost = f.gauge("store_max_bytes", "What it may hold; 0 means no limit.")
	f.blobs = f.gauge("store_blobs", "Files that are kept, manifests included.")
	f.blobBytes = f.gauge("store_blob_bytes", "Their bytes.")
	f.repositories = f.gauge("store_repositories", "Repositories of which something is known.")
	f.tags = f.gauge("store_tags", "Tags that are known.")
	f.links = f.gauge("store_links", "Rights of repositories to digests that are known.")
	f.moved = f.counter("tags_moved_total", "Tags that were found to point elsewhere: of a full version, which nobody is expected to move (release), or another (floating).", "tag")
	f.pinnedTags = f.gauge("pinned_tags", "Tags that are pinned.")
	f.pinnedBlobs = f.gauge("pinned_blobs", "Files that are not evicted since a pin needs them, those not fetched yet included.")
	f.pinnedBytes = f.gauge("pinned_bytes", "What pins hold, or will when it is fetched.")
	f.pinnedMost = f.gauge("pinned_max_bytes", "What pins may hold; 0 means no limit.")
	f.evicted = f.counter("evicted_blobs_total", "Files that were evicted to make room.")
	f.evictedBytes = f.counter("evicted_bytes_total", "Their bytes, in blocks of the disk.")
	f.again = f.counter("evicted_again_total", "Blobs and manifests that were fetched again after they were evicted: a store of about twice the size would have kept them.")
	f.againBytes = f.counter("evicted_again_bytes_total", "Bytes of what was fetched again after it was evicted.")
	f.evictedAge = f.histogram("evicted_age_seconds", "How long what was evicted had not been used: hours mean that the store is too small.")
	f.quarantined = f.gauge("quarantine_files", "Damaged files that were put aside.")
	f.quarantinedBytes = f.gauge("quarantine_bytes", "Their bytes.")
	f.degraded = f.gauge("store_degraded", "1 after the disk refused to read or to write something, until it does so again.", "access")
	f.diskFree = f.gauge("disk_free_bytes", "Free bytes of the file system of the store.")
	f.diskSize = f.gauge("disk_size_bytes", "Size of that file system.")
	f.scrubDone = f.gauge("scrub_done_ratio", "Share of the present round of reading everything that is done.")
	f.scrubBehind = f.gauge("scrub_behind_seconds", "How much later than planned the round is.")
	f.scrubOldest = f.gauge("scrub_oldest_seconds", "How long at most what waits longest has not been read; since the first round began until that has ended.")
	f.scrubInterval = f.gauge("scrub_interval_seconds", "Time within which everything is to be read; 0 means that it is off.")
	f.scrubEnded = f.gauge("scrub_ended_timestamp_seconds", "When the last round came to its end; 0 before the first has.")
	f.indexBytes = f.gauge("index_bytes", "Size of the files of the index.")
	f.indexTook = f.histogram("index_operation_duration_seconds", "Time of operations on the index: read of one record, write of a batch with its wait for others.", "operation")
	f.s3 = f.counter("s3_requests_total", "Calls to the bucket by operation and outcome; only where blobs are kept in one.", "operation", "outcome")
	f.s3Took = f.histogram("s3_request_duration_seconds", "Time of calls to the bucket.", "operation")
	f.s3Objects = f.gauge("s3_objects", "Objects in the bucket, as far as is known.")
	f.s3Bytes = f.gauge("s3_bytes", "Bytes of the objects in the bucket, as far as is known.")
	f.s3Queued = f.gauge("s3_uploads_queued", "Uploads that wait or run.")
	f.s3QueuedBytes = f.gauge("s3_uploads_queued_bytes", "Bytes of uploads that wait or run.")
	f.s3Degraded = f.gauge("s3_degraded", "1 while the bucket fails and is left alone.")
	f.s3Unsaved = f.counter("s3_evicted_unsaved_total", "Files evicted before they were uploaded.")
	f.s3RefsBehind = f.gauge("s3_refs_behind_seconds", "How long links, tags and pins wait to get into the bucket; 0 when none do.")
	f.s3RefsDamaged = f.gauge("s3_refs_damaged_segments", "Segments of links, tags and pins in the bucket with lines that could not be read, when they were read last.")
	f.s3Damaged = f.counter("s3_damaged_objects_total", "Objects in the bucket that were not what their name says.")
}
