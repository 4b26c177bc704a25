/**
 * What `mutants.ts` breaks, and the test that is to notice.
 */
import type { Change } from "./copy.ts"

/** A test: its file, and the beginning of its name. */
export type Test = readonly [file: string, name: string]

export interface Mutant extends Change {
  /** What is to fail. */
  readonly test: Test
  /** What is broken, as a sentence. */
  readonly title: string
}

const invariant = (number: number): Test => [
  [4, 5, 8].includes(number) ? "test/e2e/invariants.test.ts" : "test/invariants.test.ts",
  `invariant ${number}:`
]

const properties = (name: string): Test => ["test/properties.test.ts", name]
const tcp = (name: string): Test => ["test/KmsTcp.test.ts", name]
const unix = (name: string): Test => ["test/unix.test.ts", name]
const rpc = (name: string): Test => ["test/KmsRpc.test.ts", name]
const peers = (name: string): Test => ["test/peers.test.ts", name]
const hijack = (name: string): Test => ["test/KmsHijack.test.ts", name]
const health = (name: string): Test => ["test/KmsHealth.test.ts", name]
const view = (name: string): Test => ["test/view.test.ts", name]
const report = (name: string): Test => ["test/report.test.ts", name]
const observe = (name: string): Test => ["test/observe.test.ts", name]
const place = (name: string): Test => ["test/place.test.ts", name]
const hangs = (kind: string): Test => ["test/e2e/hangs.test.ts", `what holds on: ${kind}`]
const http = (name: string): Test => ["test/KmsHttp.test.ts", name]
const kmsTest = (name: string): Test => ["test/KmsTest.test.ts", name]
const config = (name: string): Test => ["test/config.test.ts", name]
const trouble = (name: string): Test => ["test/Kms.trouble.test.ts", name]

export const mutants: ReadonlyArray<Mutant> = [
  {
    test: ["test/options.test.ts", "of a listener are by default what their documentation says"],
    title: "a connection is quiet at once",
    file: "internal/listener.ts",
    from: 'options.quietPeriod ?? "500 millis"',
    to: "options.quietPeriod ?? 0"
  },
  {
    test: invariant(1),
    title: "the listening socket stays open during the drain",
    file: "internal/bind.ts",
    from: "if (server.listening) NetServer.prototype.close.call(server)",
    to: "void NetServer"
  },
  {
    test: invariant(1),
    title: "a listener drains only when its own scope closes",
    file: "internal/drain.ts",
    from: "this.drainOn = options.drainOn",
    to: 'this.drainOn = options.drainOn === "release" ? options.drainOn : "release"'
  },
  {
    test: ["test/KmsHttp.peers.test.ts", "in one packet with the end of an upload"],
    title: "of two responses that stand one behind the other the first says close",
    file: "internal/http.ts",
    from: "Exchange.newest(connection) === exchange && (req",
    to: "(req"
  },
  {
    test: ["test/KmsHttp.late.test.ts", "an upload that is answered early and not read"],
    title: "a response says close though half of its request is on its way",
    file: "internal/http.ts",
    from: "(req.complete || !Exchange.hasBody(req))",
    to: "true"
  },
  {
    test: ["test/KmsHttp.peers.test.ts", "a request behind a response that has said close"],
    title: "what stands behind a response that said close is executed",
    file: "internal/http.ts",
    from: "if (Exchange.newest(connection)?.isLast === true) return this.ignore(request, response)\n",
    to: ""
  },
  {
    test: ["test/KmsHttp.late.test.ts", "with setHeader: says close"],
    title: "a Connection header that was set is left alone",
    file: "internal/head.ts",
    from: 'if (own !== undefined) response.setHeader("connection", closing(own) as string)',
    to: "void own"
  },
  {
    test: ["test/KmsHttp.late.test.ts", "says close all the same in the drain"],
    title: "a Connection header of writeHead is left alone",
    file: "internal/head.ts",
    from: "head.map(withClose)",
    to: "head"
  },
  {
    test: ["test/KmsHttp.late.test.ts", "client goes in the turn"],
    title: "a request whose client has gone is handed on",
    file: "internal/batch.ts",
    from: "isGone(response) || listener",
    to: "listener"
  },
  {
    test: ["test/KmsHttp.late.test.ts", "cannot be accepted"],
    title: "an error of a server that listens is nobody's",
    file: "internal/listener.ts",
    from: 'server.on("error", (',
    to: 'server.on("never", ('
  },
  {
    test: ["test/KmsHttp.late.test.ts", "a predicate for event streams that throws"],
    title: "a predicate for event streams may throw",
    file: "KmsHttp.ts",
    from: "isEventStreamResponse : guarded(streams)",
    to: "isEventStreamResponse : streams"
  },
  {
    test: ["test/KmsRpc.test.ts", "counted as ended once"],
    title: "a call of a client that has gone ends twice",
    file: "internal/calls.ts",
    from: "client?.calls.clear()",
    to: ""
  },
  {
    test: ["test/Kms.test.ts", "what is provided around it"],
    title: "what is provided around the program may hang for ever",
    file: "internal/supervisor.ts",
    from: "Effect.andThen(Limit.over(host, left), giveUp)",
    to: "Effect.as(Effect.never, giveUp)"
  },
  {
    test: ["test/Kms.test.ts", "what is provided around it"],
    title: "a second signal is not heard while that is released",
    file: "internal/supervisor.ts",
    from: "Scope.close(listening, Exit.void) : hearOn(shutdown, listening)",
    to: "Scope.close(listening, Exit.void) : Scope.close(listening, Exit.void)"
  },
  {
    test: ["test/Kms.test.ts", "what is provided around it"],
    title: "what is provided around the program is given up though it has ended",
    file: "internal/supervisor.ts",
    from: "waiting.interruptUnsafe()",
    to: "void waiting"
  },
  {
    test: ["test/KmsHttp.peers.test.ts", "a request behind a response that has said close"],
    title: "what is not executed is not read either",
    file: "internal/http.ts",
    from: "request.resume()",
    to: ""
  },
  {
    test: ["test/KmsHttp.peers.test.ts", "a request behind a response that has said close"],
    title: "a response that said close is not known to have",
    file: "internal/http.ts",
    from: "() => void (exchange.isLast = saysClose(response))",
    to: "() => {}"
  },
  {
    test: invariant(2),
    title: "the first of several pipelined responses says close",
    file: "internal/http.ts",
    from: "if (newest !== undefined && !newest.response.headersSent) this.askToLeave(newest)",
    to: "Exchange.each(connection, ({ response }) => void (response.shouldKeepAlive = false)); void newest"
  },
  {
    test: invariant(2),
    title: "a connection that has half a request is closed at once",
    file: "internal/connection.ts",
    from: "this.waited = true\n    this.closeSoon()",
    to: "this.close()"
  },
  {
    test: invariant(3),
    title: "nothing waits for what is in flight",
    file: "internal/supervisor.ts",
    from: "yield* Effect.raceFirst(Deferred.await(shutdown.empty), forced)",
    to: "void forced"
  },
  {
    test: invariant(3),
    title: "a busy section is not counted",
    file: "internal/shutdown.ts",
    from: "if (this.gate.live.size > 0 || this.inUse?.isQuiet() === false) return false",
    to: "this.gate.close()"
  },
  {
    test: ["test/Kms.handover.test.ts", "that a request which comes late in the drain hands on on a queue"],
    title: "connections with nothing in flight are not waited for",
    file: "internal/shutdown.ts",
    from: 'for (const drain of this.account.drains) if (drain.drainOn === "shutdown" && !drain.isDone()) return false',
    to: ""
  },
  {
    test: invariant(4),
    title: "responses in flight do not say close",
    file: "internal/head.ts",
    from: "response.shouldKeepAlive = false",
    to: "void response"
  },
  {
    test: invariant(5),
    title: "the deadline is not looked at",
    file: "internal/supervisor.ts",
    from: "Limit.within(Fiber.await(unwinding), shutdown.host, deadline - shutdown.now())",
    to: "Limit.within(Fiber.await(unwinding), shutdown.host, 3_600_000 + deadline - deadline)"
  },
  {
    test: invariant(5),
    title: "finalizers are waited for after the cut, for ever",
    file: "internal/supervisor.ts",
    from: "Limit.within(Fiber.await(unwinding), shutdown.host, left)",
    to: "Limit.within(Fiber.await(unwinding), shutdown.host, left + 3_600_000)"
  },
  {
    test: invariant(6),
    title: "a second signal is ignored",
    file: "internal/signals.ts",
    from: "if (seen) return on.again(signal)",
    to: "if (seen) return"
  },
  {
    test: invariant(6),
    title: "the echo of a signal counts as a second one",
    file: "internal/signals.ts",
    from: "const echo = 500",
    to: "const echo = 0"
  },
  {
    test: invariant(7),
    title: "the scope of a launched layer is not closed",
    file: "Kms.ts",
    from: "release: (exit) => Scope.close(scope, exit)",
    to: "release: (exit) => Effect.asVoid(Effect.succeed([Scope.close, exit]))"
  },
  {
    test: invariant(7),
    title: "signal handlers stay",
    file: "internal/supervisor.ts",
    from: "void run(root.pollUnsafe() === undefined ? close : Effect.andThen(shutdown.host.turn, close))",
    to: "void run"
  },
  {
    test: invariant(8),
    title: "the server's own timer is not ended when the last connection goes",
    file: "internal/http.ts",
    from: "if (this.isDraining && this.registry.all.size === 0) this.letGoOfServer()",
    to: ""
  },
  {
    test: invariant(8),
    title: "the server's own timer is not ended when there is no connection",
    file: "internal/http.ts",
    from: "    if (this.registry.all.size === 0) this.letGoOfServer()",
    to: ""
  },
  {
    test: invariant(8),
    title: "a keep-alive handle is left behind",
    file: "internal/drain.ts",
    from: "this.endedAt = this.now()",
    to: "this.endedAt = this.now(); globalThis.setInterval(() => {}, 1000)"
  },
  {
    test: invariant(9),
    title: "the lame duck goes by real time",
    file: "internal/supervisor.ts",
    from: "yield* Effect.timeoutOption(forced, lameDuck)",
    to: "yield* Effect.provideService(Effect.timeoutOption(forced, lameDuck), Clock.Clock, Clock.Clock.defaultValue())"
  },
  {
    test: invariant(9),
    title: "a quiet connection is never looked at",
    file: "internal/sweep.ts",
    from: "Effect.runFork(Effect.provideService(this.run, Clock.Clock, Clock.Clock.defaultValue()))",
    to: "void Effect.provideService(this.run, Clock.Clock, Clock.Clock.defaultValue())"
  },
  {
    test: invariant(10),
    title: "the listener drains with the first application that closes",
    file: "internal/parts.ts",
    from: "if (this.open.length === 0 || drain.isBegun()) {",
    to: "if (drain !== undefined) {"
  },
  {
    test: invariant(10),
    title: "an application that closes does not wait for its requests",
    file: "internal/parts.ts",
    from: "yield* drain.part(part.awaitEmpty)",
    to: "void part.awaitEmpty"
  },
  {
    test: invariant(11),
    title: "what ends by itself is not counted",
    file: "internal/http.ts",
    from: 'if (this.state === "draining") {\n      this.tally.drained++',
    to: 'if (this.state === "draining") {'
  },
  {
    test: invariant(11),
    title: "what is cut is not noted",
    file: "internal/tally.ts",
    from: "this.cut++\n",
    to: ""
  },
  {
    test: invariant(12),
    title: "every request has a listener of its own",
    file: "internal/exchange.ts",
    from: 'response.on("close", closed)',
    to: 'response.on("close", () => closed.call(response))'
  },
  {
    test: invariant(12),
    title: "every request starts a fiber",
    file: "internal/http.ts",
    from: "const exchange = Exchange.begin(this, connection, response)",
    to: "Effect.runFork(Effect.void); const exchange = Exchange.begin(this, connection, response)"
  },
  {
    test: tcp('"wait" tells a handler'),
    title: "handlers are interrupted at once, whatever onDrain says",
    file: "internal/handler.ts",
    from: "if (!this.waits) this.leave()",
    to: "this.leave()"
  },
  {
    test: tcp('Kms.launch and a signal: "interrupt" interrupts'),
    title: "a handler is interrupted in the middle of a busy section",
    file: "internal/handler.ts",
    from: "this.isLeaving && this.busy === 0 && this.isLeavable",
    to: "this.isLeaving && this.isLeavable"
  },
  {
    test: tcp("delivers the last bytes of a handler that has ended"),
    title: "a connection is destroyed as soon as its handler has ended",
    file: "internal/connection.ts",
    from: "    socket.end()\n    socket.resume()\n",
    to: "    socket.destroy()\n"
  },
  {
    test: tcp("delivers the last bytes of a handler that has ended"),
    title: "what is still being sent when the drain begins has closeTimeout",
    file: "internal/tcp.ts",
    from: "else if (!connection.lingering) connection.closeSoon()",
    to: "else connection.closeSoon()"
  },
  {
    test: tcp("waits for a peer to close its half no longer than closeTimeout"),
    title: "a peer that does not close its half is waited for",
    file: "internal/connection.ts",
    from: 'else this.socket.once("finish", finished)',
    to: "else void finished"
  },
  {
    test: tcp("closes connections that nobody runs a handler for"),
    title: "connections that nobody handles stay open",
    file: "internal/tcp.ts",
    from: "else if (this.waiting.delete(connection)) connection.linger(true)",
    to: "else if (this.waiting.delete(connection)) connection.stir()"
  },
  {
    test: tcp("of the last run is that of the listener"),
    title: "the listener goes on accepting when nobody runs on it any more",
    file: "internal/parts.ts",
    from: "if (this.open.length === 0 || drain.isBegun()) {",
    to: "if (drain.isBegun()) {"
  },
  {
    test: tcp("of one of several runs waits for its handlers alone"),
    title: "the listener drains with the first of several runs that ends",
    file: "internal/parts.ts",
    from: "if (this.open.length === 0 || drain.isBegun()) {",
    to: "if (drain !== undefined) {"
  },
  {
    test: tcp("leaves a socket that its handler passed on"),
    title: "a connection closes with its handler, also where that has passed it on",
    file: "internal/run.ts",
    from: "if (!isSuccess && !this.opened)",
    to: "if (!this.opened)"
  },
  {
    test: tcp("with drainOn: release goes on accepting"),
    title: "the busy sections of a late listener wait for a gate that has closed",
    file: "internal/run.ts",
    from: "run.options.released ? { live: true } : undefined",
    to: "run.options.released ? undefined : undefined"
  },
  {
    test: tcp("is on, after three minutes"),
    title: "TCP keep-alive is off",
    file: "KmsTcp.ts",
    from: "const keepAlive = { keepAlive: true",
    to: "const keepAlive = { keepAlive: false"
  },
  {
    test: unix("another file that somebody else has put there stays"),
    title: "the file of a Unix socket is removed, whoever it belongs to",
    file: "internal/unix.ts",
    from: "a?.dev === b?.dev && a?.ino === b?.ino && a?.mtimeNs === b?.mtimeNs",
    to: "a?.dev === b?.dev"
  },
  {
    test: unix("its file has gone before its server closes"),
    title: "the file of a Unix socket stays until its server has closed",
    file: "internal/bind.ts",
    from: "        file?.remove()\n        // Not",
    to: "        // Not"
  },
  {
    test: unix("is in use, and goes on"),
    title: "a socket that somebody listens on is replaced",
    file: "internal/unix.ts",
    from: 'resume(Effect.fail(problem("EADDRINUSE", "somebody listens there")))',
    to: "resume(Effect.void)"
  },
  {
    test: unix("0600 is in force before anybody can connect"),
    title: "the mode of a Unix socket is left to the umask",
    file: "internal/unix.ts",
    from: "if (mode !== undefined) Fs.chmodSync(boundAt, mode)",
    to: "void mode"
  },
  {
    test: unix("one that knows no lock, and replaces a socket meanwhile"),
    title: "nobody looks again before a socket is put in place",
    file: "internal/unix.ts",
    from: "if (!lock.isHeld() || !isSame(identify(path), seen)) throw new Again()",
    to: "if (!lock.isHeld() || seen === null) throw new Again()"
  },
  {
    test: rpc("are told to their carrier from their beginning to their end"),
    title: "a call is not told to its connection",
    file: "internal/calls.ts",
    from: "      client.carrier?.engage()\n",
    to: ""
  },
  {
    test: rpc("TCP, no Kms, its scope closes: in flight when the drain begins is answered"),
    title: "an RpcServer that stops does not wait for its calls",
    file: "internal/calls.ts",
    from: "          yield* drained\n",
    to: "          void drained\n"
  },
  {
    test: rpc("TCP, Kms.launch and a signal: on a connection that is still open is answered"),
    title: "a connection without calls is closed at once",
    file: "internal/handler.ts",
    from: "else connection.schedule()\n  }",
    to: "else this.leave()\n  }"
  },
  {
    test: rpc("TCP, Kms.launch and a signal: on which nobody has ever called is closed"),
    title: "a connection counts as one without calls only after its first",
    file: "KmsRpc.ts",
    from: "fiber.getRef(CurrentCarrier)?.count()",
    to: "void fiber.getRef(CurrentCarrier)"
  },
  {
    test: rpc("TCP, Kms.launch and a signal: ends with the drain, with all that was sent"),
    title: "for its client a stream that ends with the drain was interrupted",
    file: "internal/calls.ts",
    from: "stream?.ending === true && stream.exits.isInterruption(exit)",
    to: "stream?.ending === true && !stream.exits.isInterruption(exit)"
  },
  {
    test: ["test/sweep.test.ts", "expires an item though each of its timers comes too early"],
    title: "a timer that comes too early puts the next look off",
    file: "internal/sweep.ts",
    from: "this.next = isTime ? Math.max(next, at + grain) : next",
    to: "this.next = Math.max(next, at + grain)"
  },
  {
    test: peers('TCP, onDrain "wait", no Kms, its scope closes: are all served'),
    title: "what the last call brings finds nobody to handle it",
    file: "internal/parts.ts",
    from: "for (const part of this.closing) last = part",
    to: "void last"
  },
  {
    test: peers('TCP, onDrain "wait", Kms.launch and a signal: by a reset, before the drain began'),
    title: "a handler waits for ever to write to a connection that has gone",
    file: "internal/run.ts",
    from: "if (!lingering && !socket.destroyed) return write",
    to: "if (!lingering || socket.destroyed) return write"
  },
  {
    test: peers('TCP, onDrain "interrupt", Kms.launch and a signal: by a reset, before the drain began'),
    title: "a handler whose connection has gone is not told of the drain",
    file: "internal/tcp.ts",
    from: "for (const visit of Array.from(this.visits)) visit.end()",
    to: "for (const { adopter } of this.registry.all) adopter?.end()"
  },
  {
    test: peers("HTTP/2, Kms.launch and a signal: by a reset, just before the drain began"),
    title: "a session that was reset is told to go away",
    file: "internal/session.ts",
    from: "if (this.session.destroyed) {",
    to: "if (false as boolean) {"
  },
  {
    test: hijack("that does not answer is destroyed after closeTimeout"),
    title: "a peer that does not answer the goodbye is waited for",
    file: "internal/hijack.ts",
    from: "if (connection.release(adopter) && (told || connection.owner.draining)) connection.closeSoon()",
    to: "void [connection.release(adopter), told]"
  },
  {
    test: hijack("is waited for as long as its goodbye takes"),
    title: "a goodbye is not waited for",
    file: "internal/adopt.ts",
    from: "this.fiber = Effect.runFork(this.goodbye)",
    to: "this.fiber = Effect.runFork(Effect.sync(() => void Effect.runFork(this.goodbye)))"
  },
  {
    test: hijack("Kms.launch and a signal: a WebSocket of ws has its goodbye"),
    title: "a socket that left a listener of ours is counted twice",
    file: "internal/adopt.ts",
    from: "own !== undefined && (own.hijacked || own.isAdopted)",
    to: "own !== undefined && own.hijacked && own.isAdopted"
  },
  {
    test: hijack("once the drain has begun its goodbye is said at once"),
    title: "a socket that is adopted late is not asked to end",
    file: "internal/connection.ts",
    from: "if (this.owner.draining) adopter.end()",
    to: "void adopter"
  },
  {
    test: health("fifty probes at once"),
    title: "each probe runs its checks",
    file: "internal/checks.ts",
    from: "!latest.isOver || this.now() < latest.until",
    to: "this.now() < latest.until"
  },
  {
    test: health("a check that cannot be interrupted is timed out"),
    title: "a check that hangs is waited for",
    file: "internal/checks.ts",
    from: "Limit.within(Fiber.await(fiber), Context.get(this.services, Process), this.spec.timeout)",
    to: "Effect.map(Fiber.await(fiber), Option.some)"
  },
  {
    test: health("a probe that resets its connection"),
    title: "a probe that goes away ends the run",
    file: "internal/checks.ts",
    from: "return Deferred.await(run.verdict)",
    to: "return Effect.onInterrupt(Deferred.await(run.verdict), () => Fiber.interrupt(run.fiber!))"
  },
  {
    test: health("says nothing of what a check failed with"),
    title: "the error of a check is in the answer",
    file: "internal/checks.ts",
    from: '? "ok" : "failed"\n',
    to: '? "ok" : String(exit.value)\n'
  },
  {
    test: health("is not ready before the layers"),
    title: "a program that starts is ready",
    file: "KmsHealth.ts",
    from: " && !Deferred.isDoneUnsafe(kms.started)",
    to: " && !kms.started"
  },
  {
    test: health("in the shutdown readiness is gone at once"),
    title: "a probe that waits is not told of the shutdown",
    file: "KmsHealth.ts",
    from: "      whileRunning(() => {\n        const ok",
    to: "      Effect.suspend(() => {\n        const ok"
  },
  {
    test: view("keeps one line at the bottom"),
    title: "a live line is not taken away before anything else is written",
    file: "internal/terminal.ts",
    from: "if (!this.isUnfinished) this.send(erase)\n        const written",
    to: "const written"
  },
  {
    test: view("keeps one line at the bottom"),
    title: "the streams are not given back",
    file: "internal/terminal.ts",
    from: "    this.restore()\n    this.restore = undefined",
    to: "    this.restore = undefined"
  },
  {
    test: view("does not find the report in the log there once more"),
    title: "a terminal has the report twice",
    file: "internal/view.ts",
    from: "terminal.logs ? Effect.void : inLog(source).end(report)",
    to: "inLog(source).end(report)"
  },
  {
    test: view("is told every three seconds"),
    title: "the report in the log is not data",
    file: "internal/view.ts",
    from: "return toJson(this.report)",
    to: "return this.report.millis"
  },
  {
    test: report("keeps a table within its columns"),
    title: "a name may give orders to a terminal",
    file: "internal/table.ts",
    from: 'text.replace(/[\\u0000-\\u001F\\u007F-\\u009F]+/g, " ")',
    to: "text"
  },
  {
    test: report("encodes the errors that a reason carries"),
    title: "an error in a reason is lost as JSON",
    file: "internal/schema.ts",
    from: "Result.try(() => Schema.encodeSync(Schema.toCodecJson(Reason))(reason))",
    to: "Result.succeed<unknown>(reason)"
  },
  {
    test: observe("tell a scrape"),
    title: "the series of a listener go before the last scrape",
    file: "internal/drain.ts",
    from: "if (isEnding(kms)) kms.onGone(remove)",
    to: "if (isEnding(kms) && false) kms.onGone(remove)"
  },
  {
    test: observe("tell a scrape"),
    title: "series stay in the registry for ever",
    file: "internal/supervisor.ts",
    from: "root.addObserver(() => last.get(root)?.gone())",
    to: "void root"
  },
  {
    test: observe("are one for the shutdown"),
    title: "the spans of drains have no parent",
    file: "internal/trace.ts",
    from: "parent?.tracer === tracer",
    to: "parent?.tracer !== tracer"
  },
  {
    test: observe("of a drain that was cut"),
    title: "the span of a drain that was cut has succeeded",
    file: "internal/drain.ts",
    from: "cut === 0 && abandoned === 0 ? Exit.void",
    to: "cut >= 0 ? Exit.void"
  },
  {
    test: observe("of a finalizer hold those"),
    title: "the spans of a finalizer are not beneath its own",
    file: "internal/finalizer.ts",
    from: "Effect.provideService(release, Tracer.ParentSpan, trace.span)",
    to: "(void Tracer, release)"
  },
  {
    test: place("where its children are"),
    title: "only the fiber itself is looked at",
    file: "internal/place.ts",
    from: "if (inner.length > 0) return inner",
    to: "void inner"
  },
  {
    test: hangs("stubborn"),
    title: "a handler that was abandoned is not named",
    file: "internal/supervisor.ts",
    from: "if (shutdown.hung.length === 0) shutdown.hung = shutdown.held()",
    to: ""
  },
  {
    test: hangs("layer"),
    title: "nobody knows which layer is being released",
    file: "internal/startup.ts",
    from: "this.end = releasing({",
    to: "void releasing; void ({"
  },
  {
    test: http("tells of a handler whose stream was reset"),
    title: "a handler whose response has ended is not told of",
    file: "internal/http.ts",
    from: "(exchange.hasEnded || exchange.connection.isGone)",
    to: "exchange.connection.isGone"
  },
  {
    test: hangs("stubborn"),
    title: "a handler whose connection has gone is not told of",
    file: "internal/http.ts",
    from: "(exchange.hasEnded || exchange.connection.isGone)",
    to: "exchange.hasEnded"
  },
  {
    test: hangs("request"),
    title: "the fibers of requests are not found",
    file: "internal/place.ts",
    from: "if (isScope(key)) fibersIn(key, fibers)",
    to: "void isScope"
  },
  {
    test: kmsTest("leaves nothing running, in the drain"),
    title: "a program that its test has left goes on",
    file: "internal/testing.ts",
    from: "if (kms instanceof Shutdown) kms.force()",
    to: "void Shutdown"
  },
  {
    test: kmsTest("returns when the start-up fails"),
    title: "a start-up that fails hangs its test",
    file: "internal/testing.ts",
    from: "Effect.raceFirst(built, Deferred.await(this.exited))",
    to: "built"
  },
  {
    test: kmsTest("has not passed when Draining is reached"),
    title: "a phase is reached before its drain has begun",
    file: "internal/testing.ts",
    from: "Deferred.await(kms.initiated) : Effect.void",
    to: "Effect.void : Effect.void"
  },
  {
    test: config("counts what the preStop"),
    title: "a preStop hook takes no time",
    file: "internal/grace.ts",
    from: "preStop: Option.getOrElse(before, () => 0)",
    to: "preStop: Option.getOrElse(before, () => 0) * 0"
  },
  {
    test: config("Kms.launchConfig ends"),
    title: "options from Config are not used",
    file: "Kms.ts",
    from: "(options) => launch(layer, options))",
    to: "(options) => launch(layer, options && {}))"
  },
  {
    test: ["test/deploy.test.ts", "is not ready at once"],
    title: "a pod in its lame duck says that it is ready",
    file: "KmsHealth.ts",
    from: '(phase() === "Running" ? reply()',
    to: '(phase() !== "Draining" ? reply()'
  },
  {
    test: ["test/lastcall.test.ts", "leaves a shutdown three quarters"],
    title: "whoever goes on connecting uses up the time of the others",
    file: "internal/supervisor.ts",
    from: "const left = shutdown.deadline - shutdown.now()",
    to: "const left = Number.POSITIVE_INFINITY"
  },
  {
    test: kmsTest("a report does not change"),
    title: "a report goes on changing",
    file: "internal/account.ts",
    from: "Array.from(this.finalized)",
    to: "this.finalized"
  },
  {
    test: trouble("leaves a finalizer what has come for it"),
    title: "a limit is over before what came in time has been read",
    file: "internal/limit.ts",
    from: "Effect.andThen(Effect.sleep(millis), host.turn)",
    to: "Effect.andThen(Effect.sleep(millis), Effect.succeed(host).pipe(Effect.asVoid))"
  },
  {
    test: health("takes the answer of a check that is there"),
    title: "a check has failed before its answer has been read",
    file: "internal/checks.ts",
    from: "Limit.within(Fiber.await(fiber), Context.get(this.services, Process), this.spec.timeout)",
    to: "(void Limit, void Process, Effect.timeoutOption(Fiber.await(fiber), this.spec.timeout))"
  },
  {
    test: trouble("does not cut work whose end has come"),
    title: "the deadline is over before what came in time has been read",
    file: "internal/supervisor.ts",
    from: "Limit.within(Fiber.await(unwinding), shutdown.host, deadline - shutdown.now())",
    to: "Effect.timeoutOption(Fiber.await(unwinding), deadline - shutdown.now())"
  },
  {
    test: trouble("does not cut a request whose answer has come"),
    title: "a listener's limit is over before what came in time has been read",
    file: "internal/drain.ts",
    from: "Limit.within(Effect.raceFirst(ended, Deferred.await(this.cut)), this.host, this.left())",
    to: "Effect.timeoutOption(Effect.raceFirst(ended, Deferred.await(this.cut)), this.left())"
  },
  {
    test: trouble("a cut that comes twice"),
    title: "a section that was cut is cut once more",
    file: "internal/shutdown.ts",
    from: "if (this.cutAt === undefined) for",
    to: "for"
  },
  {
    test: ["test/signals.test.ts", "its echo is known though"],
    title: "the echo of a signal goes by when it is read",
    file: "internal/signals.ts",
    from: "Limit.over(host, echo)",
    to: "Effect.sleep(echo)"
  },
  {
    test: ["test/lastcall.test.ts", "goes on after a turn that was blocked"],
    title: "a turn that was blocked uses up the last call",
    file: "internal/lastcall.ts",
    from: "Math.min(clock.currentTimeMillisUnsafe() - from, limit / 2)",
    to: "clock.currentTimeMillisUnsafe() - from"
  },
  {
    test: trouble("by a finalizer, leaves onStopped"),
    title: "what blocks the event loop as it is released leaves no time to tell of it",
    file: "internal/shutdown.ts",
    from: "gaveUpAt === undefined ? by : Math.max(by, gaveUpAt + this.grace)",
    to: "by"
  },
  {
    test: trouble("until long after the deadline"),
    title: "what was cut late has no time to unwind",
    file: "internal/shutdown.ts",
    from: "Math.max(Math.min(this.deadline, gaveUpAt ?? this.now()), cutAt)",
    to: "Math.min(this.deadline, gaveUpAt ?? this.now()) + cutAt * 0"
  },
  {
    test: trouble("by what unwinds"),
    title: "what blocks the event loop at the cut uses up the time of the others",
    file: "internal/shutdown.ts",
    from: "unwound.\n    this.cutAt = this.now()\n",
    to: "unwound.\n"
  },
  {
    test: trouble("around the program, at end"),
    title: "a tracer that throws stops the drain",
    file: "internal/trace.ts",
    from: "Result.getOrUndefined(Result.try(f))",
    to: "(void Result, f())"
  },
  {
    test: properties("the busy gate of a shutdown"),
    title: "work that has ended in the drain gets no turn for what it has handed on",
    file: "internal/shutdown.ts",
    from: "  worked = (): void => {\n    this.handsOver = true\n",
    to: "  worked = (): void => {\n"
  },
  {
    test: properties("the registry of connections"),
    title: "a handler whose calls are counted is not told that its connection has gone",
    file: "internal/connections.ts",
    from: "connection.gone()",
    to: "void connection.gone"
  },
  {
    test: tcp("lets whoever a socket was passed on to hand a job on when it has closed"),
    title: "the end of a socket that somebody reads is no end of work",
    file: "internal/tcp.ts",
    from: "if (connection.isAdopted) this.worked()",
    to: "if (false as boolean) this.worked()"
  },
  {
    test: tcp("gives the peer of a handler that has let go of its socket and worked on its closeTimeout"),
    title: "a connection whose time came while its handler was at work is never closed",
    file: "internal/run.ts",
    from: "if (connection.lingering && connection.due === undefined) connection.closeAfterFinish()",
    to: "if (connection.lingering) return this.run.ended(this)"
  },
  {
    test: ["test/Kms.handover.test.ts", "that the handler of a late request begins when its client has gone"],
    title: "the end of a connection with a request in flight is no end of work",
    file: "internal/http.ts",
    from: "if (worked) this.worked()",
    to: "if (worked) this.check()"
  },
  {
    test: ["test/connections.test.ts", "counts as gone at once, and once"],
    title: "a connection that was destroyed counts until it says that it has closed",
    file: "internal/connection.ts",
    from: "if (!isEncrypted && !this.hijacked) this.owner.remove(this)",
    to: "void isEncrypted"
  },
  {
    test: http("an application that is closed by a request of its own, in the first step of it, answers it"),
    title: "a handler in its first step is not counted",
    file: "internal/serve.ts",
    from: "[...fibersIn(this.scopes[0]), ...this.beginning]",
    to: "fibersIn(this.scopes[0])"
  },
  {
    test: http("an application that is served after the drain has begun answers what still comes, and is waited for"),
    title: "an application that comes when the drain has begun is not told",
    file: "internal/serves.ts",
    from: "if (this.drained) serve.end()",
    to: "void serve"
  },
  {
    test: http("nothing is kept of a request that has been answered"),
    title: "the handlers of all requests are kept",
    file: "internal/serve.ts",
    from: "if (this.depth === 0) this.beginning.length = 0",
    to: "void this.beginning"
  },
  {
    test: http("closing one lets its requests finish"),
    title: "handlers that run when their application ends are not counted",
    file: "internal/serve.ts",
    from: "for (const fiber of this.running()) this.tell(fiber)",
    to: "void this.running()"
  },
  {
    test: http("the answer of a listener that the server had before the application says close in the drain"),
    title: "a request is known when it comes to the application, and no sooner",
    file: "internal/open.ts",
    from: "if (!batch.isHeld(server.rawListeners(event)[0]))",
    to: "if (server.listenerCount(event) === 0)"
  }
]
