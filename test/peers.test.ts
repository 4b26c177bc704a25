/**
 * What misbehaving peers do to every kind of listener: one table, played over real sockets in the ways in which a program
 * comes to its end. A theme is a kind of peer; each listener of `support/listeners.ts` is played in it, or the theme says
 * why not. What is peculiar to HTTP is in `KmsHttp.peers.test.ts`.
 *
 * Bounds on time are contrasts: what is to happen at once happens well before a limit that was made long, and what is to
 * wait does not happen before a limit that was made short.
 */
import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect, Exit, Fiber, Layer, type Scope } from "effect"
import { Kms } from "effect-kms"
import type { AddressInfo, Server, Socket } from "node:net"
import { join } from "node:path"
import { Worker } from "node:worker_threads"
import { vi } from "vitest"
import { acceptedBy } from "./support/ground.ts"
import { type Key, type Listener, listeners, type Options as ListenerOptions } from "./support/listeners.ts"
import * as Peers from "./support/peers.ts"
import { type Manner, reset, type Talk } from "./support/talks.ts"
import * as Unix from "./support/unix.ts"
import type * as Volley from "./support/volley.ts"
import type * as Ways from "./support/ways.ts"
import { large, type Work, WorkStage } from "./support/work.ts"

// Most of a test is to wait for a limit.
vi.setConfig({ maxConcurrency: 20 })

/** One program with its stage. */
interface Scene {
  readonly listener: Listener
  readonly stage: WorkStage
  readonly program: Ways.Program
  readonly supervised: boolean
  readonly server: Server
  readonly address: Peers.Address
  /** The other listener, where there is one. */
  readonly above: { readonly stage: WorkStage; readonly talk: Talk } | undefined
  /** A connection that nothing has been said on yet. */
  readonly dial: (options?: Omit<Peers.DialOptions, "tls">) => Effect.Effect<Peers.Line, never, Scope.Scope>
  /** A connection with its handshakes done. */
  readonly connect: (options?: Omit<Peers.DialOptions, "tls"> & Manner) => Effect.Effect<Talk, never, Scope.Scope>
  /** Completes when a handler works on it. */
  readonly entered: (work: Work) => Effect.Effect<void>
  /** Begins the end, and completes when the drain has begun. */
  readonly drain: Effect.Effect<void>
  /**
   * The program ended by itself, no handler met anything closed, nothing was left open, and as many connections were cut
   * as are told. Gives the time of it.
   */
  readonly endsWell: (cut?: number) => Effect.Effect<number>
}

interface Options extends ListenerOptions {
  readonly limits?: Ways.Limits
  readonly holdsUpgrades?: boolean
  /** The listener is beneath another one, which has a peer of its own. */
  readonly beneath?: boolean
}

type Play = (scene: Scene) => Effect.Effect<void, never, Scope.Scope>

/** A turn of the event loop, for fibers that have been forked to run. */
const aTurn = Effect.callback<void>((resume) => void setImmediate(() => resume(Effect.void)))

const scene = (
  listener: Listener,
  way: Ways.Way,
  { beneath = false, holdsUpgrades = false, limits = { timeout: hangs }, ...options }: Options
): Effect.Effect<Scene, never, Scope.Scope> =>
  Effect.gen(function* () {
    const stage = new WorkStage()
    stage.holdsUpgrades = holdsUpgrades
    if (listener.unix === true) stage.place = join(yield* Unix.directory, "socket")
    const begun = Effect.andThen(
      Kms.initiated,
      Effect.sync(() => void (stage.begun = true))
    )
    const watch = Layer.effectDiscard(Effect.forkScoped(begun, { startImmediately: true }))
    const layer = Layer.merge(listener.layer(stage, { drainTimeout: hangs, ...options }), watch)
    const higher = new WorkStage()
    const program = yield* way.start(
      beneath ? Layer.provide(listeners.tcpWait.layer(higher, {}), layer) : layer,
      limits
    )
    yield* aTurn
    const server = stage.listening
    const address = addressOf(server)
    const above = beneath
      ? { stage: higher, talk: yield* listeners.tcpWait.speech.open(yield* Peers.dial(addressOf(higher.listening))) }
      : undefined
    const dial: Scene["dial"] = (options) => Peers.dial(address, { ...options, tls: listener.tls })
    return {
      listener,
      stage,
      program,
      supervised: way.supervised,
      server,
      address,
      above,
      dial,
      connect: (options) =>
        Effect.flatMap(dial(options), (line) => listener.speech.open(line, options)).pipe(
          // Over TLS the peer is through with the handshake before its server is.
          Effect.tap(() => (listener.converses === true ? stage.entered("conversation") : Effect.void))
        ),
      entered: (work) =>
        Effect.raceFirst(
          stage.entered(work),
          Effect.andThen(program.ended, Effect.die(new Error(`The program has ended, and nobody began "${work}"`)))
        ),
      drain: Effect.suspend(() => {
        program.begin()
        return until(() => stage.begun || !server.listening)
      }),
      endsWell: (cut = 0) =>
        Effect.map(program.ended, ({ at, exit, log, report }) => {
          assert.deepStrictEqual(stage.trouble, [], "met a resource that was closed")
          assert.isTrue(Exit.isSuccess(exit) || Cause.hasInterruptsOnly(exit.cause), String(exit))
          assert.strictEqual(report?.forced ?? false, false)
          if (report !== undefined) {
            const counted = report.listeners.reduce((sum, { cut }) => sum + cut, 0)
            const abandoned = report.listeners.reduce((sum, { abandoned }) => sum + abandoned, 0)
            assert.deepStrictEqual({ cut: counted, abandoned }, { cut, abandoned: 0 })
          } else if (cut === 0) assert.notMatch(log.join("\n"), /was cut after/)
          assert.isFalse(stage.open)
          return at
        })
    }
  })

const addressOf = (server: Server): Peers.Address => {
  const address = server.address() as AddressInfo | string
  return typeof address === "string" ? { path: address } : { host: "127.0.0.1", port: address.port }
}

/** Looks in each turn of the event loop: for what there is no event of. */
const until = (is: () => boolean): Effect.Effect<void> =>
  Effect.callback<void>((resume) => {
    let handle: NodeJS.Immediate
    const look = () => {
      if (is()) resume(Effect.void)
      else handle = setImmediate(look)
    }
    look()
    return Effect.sync(() => clearImmediate(handle))
  })

interface Row {
  /** A test for each listener for which `among` is true, and each of its ways. */
  (
    name: string,
    among: (listener: Listener, key: Key) => boolean,
    options: Options | ((listener: Listener) => Options),
    play: Play,
    ways?: (listener: Listener) => ReadonlyArray<Ways.Way>
  ): void
}

type Except = Partial<Record<Key, string>>

const keys = Object.keys(listeners) as ReadonlyArray<Key>

/**
 * One kind of peer. Each listener is in one of its rows at least, or in none and in `except` with the reason. Themes that
 * need the machine for themselves are played `one` after the other.
 */
const theme = (name: string, except: Except, rows: (row: Row) => void, one = false): void => {
  const suite = one ? describe : describe.concurrent
  suite(name, () => {
    const played = new Set<Key>()
    rows((name, among, options, play, waysOf = ({ ways }) => ways) => {
      for (const key of keys) {
        const listener: Listener = listeners[key]
        if (except[key] !== undefined || !among(listener, key)) continue
        played.add(key)
        for (const way of waysOf(listener)) {
          it.live(`${listener.name}, ${way.name}: ${name}`, () =>
            Effect.flatMap(scene(listener, way, typeof options === "function" ? options(listener) : options), play)
          )
        }
      }
    })
    for (const key of keys) {
      if (played.has(key) || except[key] !== undefined) continue
      throw new Error(`"${name}" has to play ${key}, or to say why it does not`)
    }
  })
}

/** A drain that takes so long does not end by itself. */
const hangs = 15_000

/** One reason for several. */
const because = (reason: string, ...keys: ReadonlyArray<Key>): Except =>
  Object.fromEntries(keys.map((key) => [key, reason]))

/** Longer than any test takes: what waits for it has not ended by itself. */
const long = 20_000

const now = (): number => performance.now()

const all = () => true
const onceQuiet = ({ idle }: Listener) => idle === "once quiet"
const atOnce = ({ idle }: Listener) => idle === "at once"
const withItsPeer = ({ idle }: Listener) => idle === "with its peer"
const isWebSocket = ({ farewell }: Listener) => farewell.idle.includes("1001")
/** A Unix socket cannot be. */
const canBeReset = ({ unix }: Listener) => unix !== true
const finishes = ({ work }: Listener) => work === "finished"
const interrupts = ({ work }: Listener) => work === "interrupted"

/** Its connection came to a clean end: a FIN and no reset. */
const endsCleanly = (talk: Talk) =>
  Effect.map(talk.closed, ({ at, ended, error }) => {
    assert.deepStrictEqual({ ended, error }, { ended: true, error: undefined })
    return at
  })

/** A peer that has nothing more to ask: where its listener waits for it, it says so. */
const leaves = ({ listener }: Scene, talk: Talk) =>
  Effect.suspend(() => {
    if (withItsPeer(listener)) talk.end()
    return endsCleanly(talk)
  })

/** Completes when one of the connections of the listener has brought as many bytes from the network. */
const hasRead = ({ server }: Scene, bytes: number) =>
  until(() => acceptedBy(server).some((socket) => socket.bytesRead >= bytes))

const bytesRead = ({ server }: Scene): number => acceptedBy(server).reduce((sum, { bytesRead }) => sum + bytesRead, 0)

/** Long enough for whoever closes too early to have done so. */
const aMoment = Effect.sleep(50)

theme("a peer that connects and never says anything", {}, (row) => {
  row(
    "is let go once its connection is older than quietPeriod, not before",
    onceQuiet,
    { quietPeriod: 400, closeTimeout: long },
    Effect.fnUntraced(function* ({ connect, drain, endsWell, listener }) {
      const opened = now()
      const talk = yield* connect()
      yield* drain
      assert.isAtLeast((yield* endsCleanly(talk)) - opened, 400)
      assert.deepStrictEqual(talk.told(), listener.farewell.idle)
      yield* endsWell()
    })
  )
  row(
    "is let go at once if it is older than quietPeriod",
    onceQuiet,
    { quietPeriod: 2000, closeTimeout: long },
    Effect.fnUntraced(function* ({ connect, drain, endsWell, listener }) {
      const talk = yield* connect()
      yield* Effect.sleep(2050)
      assert.isFalse(talk.isClosed())
      const begun = now()
      yield* drain
      yield* endsCleanly(talk)
      assert.deepStrictEqual(talk.told(), listener.farewell.idle)
      assert.isBelow((yield* endsWell()) - begun, 1900)
    })
  )
  row(
    "is let go at once",
    atOnce,
    { quietPeriod: long, closeTimeout: long },
    Effect.fnUntraced(function* ({ connect, drain, endsWell, listener }) {
      const talk = yield* connect()
      yield* drain
      yield* endsCleanly(talk)
      assert.deepStrictEqual(talk.told(), listener.farewell.idle)
      yield* endsWell()
    })
  )
  row(
    "holds the drain until it goes",
    withItsPeer,
    { quietPeriod: 0, closeTimeout: 0 },
    Effect.fnUntraced(function* ({ connect, drain, endsWell, program }) {
      const talk = yield* connect()
      yield* drain
      yield* aMoment
      assert.deepStrictEqual([talk.isClosed(), program.isEnded()], [false, false])
      talk.end()
      yield* endsCleanly(talk)
      yield* endsWell()
    })
  )
  row(
    "is cut after drainTimeout, and named",
    withItsPeer,
    { drainTimeout: 300 },
    Effect.fnUntraced(function* ({ connect, drain, endsWell, listener, program }) {
      const talk = yield* connect()
      const begun = now()
      yield* drain
      yield* talk.closed
      assert.isAtLeast((yield* endsWell(1)) - begun, 300)
      yield* isNamed(program, listener)
    })
  )
})

/** The report of a shutdown names what was cut; without one the log does. */
const isNamed = (program: Ways.Program, { cutWork }: Listener) =>
  Effect.map(program.ended, ({ log, report }) => {
    if (report === undefined) return assert.match(log.join("\n"), /was cut after [\d.]+m?s\. 1 cut: /)
    const named = report.listeners.flatMap((listener) => listener.cutWork)
    assert.lengthOf(named, 1)
    assert.match(named[0]!, cutWork)
  })

theme("a peer that has been served and is quiet", {}, (row) => {
  row(
    "is let go at once, if it has been for longer than quietPeriod",
    onceQuiet,
    { quietPeriod: 2000, closeTimeout: long },
    Effect.fnUntraced(function* ({ connect, drain, endsWell, listener }) {
      const talk = yield* connect()
      talk.ask("ping")
      assert.strictEqual((yield* talk.answer).text, "pong")
      yield* Effect.sleep(2050)
      assert.isFalse(talk.isClosed())
      const begun = now()
      yield* drain
      yield* endsCleanly(talk)
      assert.deepStrictEqual(talk.told(), listener.farewell.idle)
      assert.isBelow((yield* endsWell()) - begun, 1900)
    })
  )
  row(
    "is let go once it has been for quietPeriod, not before",
    (listener, key) => onceQuiet(listener) && key !== "http2",
    { quietPeriod: 400, closeTimeout: long },
    Effect.fnUntraced(function* ({ connect, drain, endsWell }) {
      const talk = yield* connect()
      talk.ask("ping")
      const asked = now()
      yield* talk.answer
      yield* drain
      assert.isAtLeast((yield* endsCleanly(talk)) - asked, 400)
      yield* endsWell()
    })
  )
  row(
    "is answered if it speaks once more within quietPeriod",
    (listener, key) => onceQuiet(listener) && key !== "http2",
    { quietPeriod: 2000, closeTimeout: long },
    Effect.fnUntraced(function* ({ connect, drain, endsWell, listener }) {
      const talk = yield* connect()
      talk.ask("ping")
      yield* talk.answer
      yield* drain
      yield* Effect.sleep(200)
      talk.ask("ping")
      assert.strictEqual((yield* talk.answer).text, "pong")
      yield* endsCleanly(talk)
      assert.deepStrictEqual(talk.told(), listener.farewell.work)
      yield* endsWell()
    })
  )
  row(
    "is let go at once",
    (listener, key) => atOnce(listener) || key === "http2",
    { quietPeriod: long, closeTimeout: long },
    Effect.fnUntraced(function* ({ connect, drain, endsWell, listener }) {
      const talk = yield* connect()
      talk.ask("ping")
      assert.strictEqual((yield* talk.answer).text, "pong")
      yield* drain
      yield* endsCleanly(talk)
      assert.deepStrictEqual(talk.told(), listener.farewell.idle)
      yield* endsWell()
    })
  )
  row(
    "is answered if it speaks once more, until it goes",
    withItsPeer,
    { quietPeriod: 0, closeTimeout: 0 },
    Effect.fnUntraced(function* ({ connect, drain, endsWell }) {
      const talk = yield* connect()
      talk.ask("ping")
      yield* talk.answer
      yield* drain
      yield* aMoment
      talk.ask("ping")
      assert.strictEqual((yield* talk.answer).text, "pong")
      talk.end()
      yield* endsCleanly(talk)
      yield* endsWell()
    })
  )
})

theme("a peer with work in flight", {}, (row) => {
  row(
    "gets its whole answer, and then the end",
    finishes,
    { quietPeriod: 200, closeTimeout: long },
    Effect.fnUntraced(function* (scene) {
      const { connect, drain, endsWell, entered, listener, program, stage } = scene
      const talk = yield* connect()
      talk.ask("slow")
      yield* entered("slow")
      yield* drain
      yield* Effect.sleep(250)
      assert.deepStrictEqual([talk.isClosed(), program.isEnded()], [false, false])
      stage.release()
      assert.strictEqual((yield* talk.answer).text, "slow")
      yield* leaves(scene, talk)
      assert.deepStrictEqual(talk.told(), listener.farewell.work)
      yield* endsWell()
    })
  )
  row(
    "is let go at once",
    interrupts,
    { quietPeriod: long, closeTimeout: long },
    Effect.fnUntraced(function* ({ connect, drain, endsWell, entered, listener }) {
      const talk = yield* connect()
      talk.ask("slow")
      yield* entered("slow")
      yield* drain
      yield* endsCleanly(talk)
      assert.deepStrictEqual(talk.told(), listener.farewell.work)
      yield* endsWell()
    })
  )
})

theme(
  "a peer that has sent half of a question",
  {
    ...because("a session is told GOAWAY, and what comes after is for another one", "http2"),
    ...because(
      "it knows of no questions: its handler is let go of whatever it has read",
      ...keys.filter((key) => atOnce(listeners[key]))
    )
  },
  (row) => {
    row(
      "is answered if it sends the rest within closeTimeout",
      all,
      { quietPeriod: 100, closeTimeout: long },
      Effect.fnUntraced(function* (scene) {
        const { connect, drain, endsWell, entered, stage } = scene
        const talk = yield* connect()
        talk.ask("ping")
        yield* talk.answer
        const before = bytesRead(scene)
        const rest = talk.askHalf("slow")
        yield* until(() => bytesRead(scene) > before)
        yield* drain
        yield* Effect.sleep(150)
        rest()
        yield* entered("slow")
        yield* aMoment
        stage.release()
        assert.strictEqual((yield* talk.answer).text, "slow")
        yield* leaves(scene, talk)
        yield* endsWell()
      })
    )
    row(
      "is closed after closeTimeout if it never sends the rest, not before",
      onceQuiet,
      { quietPeriod: 0, closeTimeout: 400 },
      Effect.fnUntraced(function* (scene) {
        const { connect, drain, endsWell, listener } = scene
        const talk = yield* connect()
        talk.ask("ping")
        yield* talk.answer
        const before = bytesRead(scene)
        talk.askHalf("slow")
        yield* until(() => bytesRead(scene) > before)
        const begun = now()
        yield* drain
        assert.isAtLeast((yield* talk.closed).at - begun, 400)
        // A frame of which half is missing has no close after it.
        yield* endsWell(isWebSocket(listener) ? 1 : 0)
      })
    )
  }
)

theme(
  "a peer that never closes its own half",
  because("a session of Node's client closes by itself; see `KmsHttp.peers.test.ts` for one that does not", "http2"),
  (row) => {
    row(
      "is not waited for",
      (_, key) => key === "http" || key === "https",
      { quietPeriod: 0, closeTimeout: long },
      Effect.fnUntraced(function* ({ connect, drain, endsWell }) {
        const talk = yield* connect({ allowHalfOpen: true })
        yield* drain
        yield* talk.ended
        yield* endsWell()
      })
    )
    row(
      "is waited for as long as closeTimeout, not longer",
      (listener, key) => key !== "http" && key !== "https" && !withItsPeer(listener),
      { quietPeriod: 0, closeTimeout: 400 },
      Effect.fnUntraced(function* ({ connect, drain, endsWell, listener }) {
        const talk = yield* connect({ allowHalfOpen: true, deaf: true })
        const begun = now()
        yield* drain
        if (!isWebSocket(listener)) yield* talk.ended
        const at = yield* endsWell(listener.unclosed)
        assert.deepStrictEqual(talk.told(), listener.farewell.idle)
        assert.isAtLeast(at - begun, 390)
        assert.isBelow(at - begun, 4000)
      })
    )
    row(
      "is not waited for once it is gone by a reset",
      (listener, key) => key !== "http" && key !== "https" && !withItsPeer(listener) && canBeReset(listener),
      { quietPeriod: 0, closeTimeout: long },
      Effect.fnUntraced(function* ({ connect, drain, endsWell, listener, program }) {
        const talk = yield* connect({ allowHalfOpen: true, deaf: true })
        yield* drain
        if (!isWebSocket(listener)) yield* talk.ended
        yield* aMoment
        assert.isFalse(program.isEnded())
        talk.reset()
        yield* endsWell()
      })
    )
    row(
      "is waited for as long as closeTimeout after its answer, not longer",
      withItsPeer,
      { closeTimeout: 400 },
      Effect.fnUntraced(function* ({ connect, drain, endsWell, entered, stage }) {
        const talk = yield* connect({ allowHalfOpen: true })
        talk.ask("last")
        yield* entered("last")
        yield* drain
        const released = now()
        stage.release()
        assert.strictEqual((yield* talk.answer).text, "last")
        yield* talk.ended
        const at = yield* endsWell()
        assert.isAtLeast(at - released, 390)
        assert.isBelow(at - released, 4000)
      })
    )
  }
)

theme(
  "a peer that has sent more than anybody reads",
  {
    ...because("everything that is sent over HTTP asks for something", "http", "https", "http2"),
    ...because("every frame is read, and every call answered", "rpc", "webSocketRpc")
  },
  (row) => {
    row(
      "gets its whole answer, and is not waited for once it has gone",
      finishes,
      { closeTimeout: long },
      Effect.fnUntraced(function* ({ connect, drain, endsWell, entered, stage }) {
        const talk = yield* connect()
        talk.ask("last")
        talk.babble()
        yield* entered("last")
        yield* drain
        yield* aMoment
        stage.release()
        assert.strictEqual((yield* talk.answer).text, "last")
        yield* endsCleanly(talk)
        yield* endsWell()
      })
    )
    row(
      "sees a proper end, and is not waited for once it has gone",
      interrupts,
      { closeTimeout: long },
      Effect.fnUntraced(function* ({ connect, drain, endsWell, entered }) {
        const talk = yield* connect()
        talk.ask("last")
        talk.babble()
        yield* entered("last")
        yield* drain
        yield* endsCleanly(talk)
        yield* endsWell()
      })
    )
  }
)

theme("a peer that sends without a pause", {}, (row) => {
  const limits = { quietPeriod: 200, closeTimeout: 400 }
  row(
    "does not keep the drain from ending, and gets the last of its answer",
    finishes,
    limits,
    Effect.fnUntraced(function* ({ connect, drain, endsWell, entered, listener, stage }) {
      const talk = yield* connect({ allowHalfOpen: true })
      talk.flood("last")
      yield* entered("last")
      yield* drain
      yield* aMoment
      const released = now()
      stage.release()
      assert.strictEqual((yield* talk.answer).text, "last")
      yield* talk.ended
      assert.isBelow((yield* endsWell(listener.unclosed)) - released, 3000)
    })
  )
  row(
    "does not keep the drain from ending, and sees a proper end",
    interrupts,
    limits,
    Effect.fnUntraced(function* ({ connect, drain, endsWell, entered }) {
      const talk = yield* connect({ allowHalfOpen: true })
      talk.flood("last")
      yield* entered("last")
      const begun = now()
      yield* drain
      yield* talk.ended
      assert.isBelow((yield* endsWell()) - begun, 3000)
    })
  )
})

theme(
  "a peer that has ended its half, and waits for its answer,",
  {
    ...because("a session has no half: Node takes the end of its connection for its own", "http2"),
    ...because(
      "a WebSocket has no half either: it closes for both, with a frame (RFC 6455 section 5.5.1)",
      "adoptedWebSocket",
      "webSocket",
      "webSocketRpc"
    ),
    ...because("to Effect's own protocol the end of a client's half is the end of the client, calls and all", "rpc")
  },
  (row) => {
    row(
      "gets it whole, and then the end",
      finishes,
      { allowHalfOpen: true, quietPeriod: long, closeTimeout: long },
      Effect.fnUntraced(function* ({ connect, drain, endsWell, entered, listener, stage }) {
        const talk = yield* connect({ allowHalfOpen: true })
        talk.ask("slow")
        talk.end()
        yield* entered("slow")
        yield* aMoment
        yield* drain
        yield* aMoment
        assert.isFalse(talk.isClosed())
        stage.release()
        assert.strictEqual((yield* talk.answer).text, "slow")
        yield* endsCleanly(talk)
        assert.deepStrictEqual(talk.told(), listener.farewell.work)
        yield* endsWell()
      })
    )
    row(
      "is let go at once",
      interrupts,
      { allowHalfOpen: true, quietPeriod: long, closeTimeout: long },
      Effect.fnUntraced(function* ({ connect, drain, endsWell, entered }) {
        const talk = yield* connect({ allowHalfOpen: true })
        talk.ask("slow")
        talk.end()
        yield* entered("slow")
        yield* drain
        yield* endsCleanly(talk)
        yield* endsWell()
      })
    )
  }
)

theme("a peer that takes nothing of what it asked for", {}, (row) => {
  row(
    "is cut after its limit, not before, and named",
    all,
    // The other limit has nothing to do with it.
    ({ stuck }) => ({ quietPeriod: 0, closeTimeout: long, drainTimeout: long, [stuck]: 400 }),
    Effect.fnUntraced(function* ({ connect, drain, endsWell, listener, program, supervised }) {
      const talk = yield* connect()
      talk.ask("large")
      yield* talk.some
      talk.pause()
      const begun = now()
      yield* drain
      const at = yield* endsWell(1)
      assert.isAtLeast(at - begun, 390)
      assert.isBelow(at - begun, 4000)
      if (supervised || listener.stuck === "drainTimeout") yield* isNamed(program, listener)
    })
  )
  row(
    "is cut at the deadline, and named",
    all,
    { quietPeriod: 0, closeTimeout: long, limits: { timeout: 400, forceTimeout: 3500 } },
    Effect.fnUntraced(function* ({ connect, drain, program, stage }) {
      const talk = yield* connect()
      talk.ask("large")
      yield* talk.some
      talk.pause()
      const begun = now()
      yield* drain
      const { at, code, report } = yield* program.ended
      assert.isAtLeast(at - begun, 390)
      assert.isBelow(at - begun, 4000)
      assert.deepStrictEqual([code, report?.forced], [1, true])
      const cut = report!.listeners.flatMap(({ cutWork }) => cutWork)
      assert.lengthOf(cut, 1)
      assert.match(cut[0]!, / from | to /)
      assert.strictEqual(
        report!.listeners.reduce((sum, { cut }) => sum + cut, 0),
        1
      )
      assert.deepStrictEqual([stage.trouble, stage.open], [[], false])
    }),
    ({ ways }) => ways.filter(({ supervised }) => supervised)
  )
})

theme("a peer that takes 8 MB slowly", {}, (row) => {
  row(
    "gets every byte",
    all,
    // Where the peer is not hurried its closeTimeout begins when it has taken all.
    // But for one that has to answer the close: that comes after what is still on its way to it.
    ({ hurries, unclosed }) => ({ quietPeriod: 0, closeTimeout: hurries || unclosed > 0 ? long : 60 }),
    Effect.fnUntraced(function* (scene) {
      const { connect, drain, endsWell } = scene
      const talk = yield* connect()
      talk.ask("large")
      yield* talk.some
      talk.pause()
      yield* drain
      // Long enough for whoever counts the answer as sent to destroy the connection.
      yield* Effect.sleep(100)
      talk.readSlowly()
      const { bytes, hash } = yield* talk.answer
      assert.deepStrictEqual({ bytes, hash }, { bytes: large().text.length, hash: large().hash })
      yield* leaves(scene, talk)
      yield* endsWell()
    })
  )
  row(
    "gets every byte of what a handler has left behind that ended long ago",
    ({ converses, hurries }) => converses === true && !hurries,
    { closeTimeout: 60 },
    Effect.fnUntraced(function* ({ connect, drain, endsWell }) {
      const talk = yield* connect()
      talk.ask("left")
      yield* talk.some
      talk.pause()
      yield* drain
      yield* Effect.sleep(100)
      talk.readSlowly()
      assert.strictEqual((yield* talk.answer).hash, large().hash)
      yield* endsCleanly(talk)
      yield* endsWell()
    })
  )
})

theme("a peer that is gone while its handler works", {}, (row) => {
  for (const when of ["before", "just before", "after"]) {
    for (const how of ["reset", "close"] as const) {
      const gone = `by a ${how}, ${when} the drain began,`
      const is = (listener: Listener) => how !== "reset" || canBeReset(listener)
      /** It goes, and somebody else who came after it sees nothing of that. */
      const goes = Effect.fnUntraced(function* (scene: Scene) {
        const { connect, drain, entered } = scene
        const talk = yield* connect()
        talk.ask("slow")
        yield* entered("slow")
        const bystander = yield* connect()
        bystander.ask("ping")
        yield* bystander.answer
        if (when !== "after") talk[how]()
        if (when === "before") yield* aMoment
        yield* drain
        if (when === "after") talk[how]()
        yield* leaves(scene, bystander)
      })
      row(
        `${gone} holds the drain no longer than the handler works`,
        (listener) => listener.orphan[how] === "goes on" && is(listener),
        { quietPeriod: 100, closeTimeout: long },
        Effect.fnUntraced(function* (scene) {
          yield* goes(scene)
          yield* aMoment
          assert.isFalse(scene.program.isEnded())
          scene.stage.release()
          yield* scene.endsWell()
        })
      )
      row(
        `${gone} does not hold the drain: the handler is interrupted`,
        (listener) => listener.orphan[how] === "interrupted" && is(listener),
        { quietPeriod: 100, closeTimeout: long },
        Effect.fnUntraced(function* (scene) {
          yield* goes(scene)
          yield* scene.endsWell()
        })
      )
    }
  }
})

const isUpgraded = ({ speech }: Listener) => speech.head !== ""
const notUpgraded: ReadonlyArray<Key> = keys.filter((key) => !isUpgraded(listeners[key]))

theme("a peer in the middle of an upgrade", because("it upgrades nothing", ...notUpgraded), (row) => {
  // Of the upgrade of an RPC server there is nothing to hold: it is that of the WebSocket on KmsHttp.
  const isHeld = (_: Listener, key: Key) => key !== "webSocketRpc"

  row(
    "is told to go or refused, if it asks after the drain began",
    ({ late }) => late !== undefined,
    { quietPeriod: 3000, closeTimeout: long },
    Effect.fnUntraced(function* (scene) {
      const { dial, drain, endsWell, listener, server } = scene
      const line = yield* dial()
      yield* until(() => acceptedBy(server).length === 1)
      yield* drain
      const talk = yield* listener.speech.open(line)
      yield* endsCleanly(talk)
      assert.deepStrictEqual(talk.told(), listener.late)
      yield* endsWell()
    })
  )
  row(
    "is told to go or refused, as soon as it is made",
    (listener, key) => listener.late !== undefined && isHeld(listener, key),
    { holdsUpgrades: true, quietPeriod: long, closeTimeout: long },
    Effect.fnUntraced(function* ({ dial, drain, endsWell, listener, stage }) {
      const talking = yield* Effect.forkChild(
        Effect.flatMap(dial(), (line) => listener.speech.open(line)),
        { startImmediately: true }
      )
      yield* stage.entered("upgrade")
      yield* drain
      yield* aMoment
      stage.release()
      const talk = yield* Fiber.join(talking)
      yield* endsCleanly(talk)
      assert.deepStrictEqual(talk.told(), listener.late)
      yield* endsWell()
    })
  )
  for (const when of ["before", "after"]) {
    row(
      `is gone by a reset ${when} the drain began, and nobody minds`,
      isHeld,
      { holdsUpgrades: true, quietPeriod: long, closeTimeout: long },
      Effect.fnUntraced(function* ({ dial, drain, endsWell, listener, stage }) {
        const { carrier } = yield* dial()
        carrier.write(listener.speech.head)
        yield* stage.entered("upgrade")
        if (when === "before") {
          reset(carrier)
          yield* aMoment
        }
        yield* drain
        if (when === "after") {
          yield* aMoment
          reset(carrier)
        }
        yield* aMoment
        stage.release()
        yield* endsWell()
      })
    )
    row(
      `is gone by a reset ${when} the drain began with half of its request sent, and nobody minds`,
      all,
      { quietPeriod: long, closeTimeout: long },
      Effect.fnUntraced(function* (scene) {
        const { dial, drain, endsWell, listener } = scene
        const { carrier } = yield* dial()
        carrier.write(listener.speech.head.slice(0, 20))
        yield* hasRead(scene, 20)
        if (when === "before") reset(carrier)
        yield* drain
        if (when === "after") {
          yield* aMoment
          reset(carrier)
        }
        yield* endsWell()
      })
    )
  }
})

const noTls: ReadonlyArray<Key> = keys.filter((key) => listeners[key].tls === undefined)

theme("a peer in the middle of its TLS handshake", because("it speaks no TLS", ...noTls), (row) => {
  row(
    "is heard if it gets on within closeTimeout",
    (listener) => !atOnce(listener),
    { quietPeriod: 300, closeTimeout: long },
    Effect.fnUntraced(function* (scene) {
      const { dial, drain, endsWell, listener } = scene
      const line = yield* dial({ hold: 100 })
      yield* hasRead(scene, 100)
      yield* drain
      yield* Effect.sleep(350)
      yield* line.ready
      const talk = yield* listener.speech.open(line)
      talk.ask("ping")
      assert.strictEqual((yield* talk.answer).text, "pong")
      yield* leaves(scene, talk)
      yield* endsWell()
    })
  )
  row(
    "is let go once it is through",
    atOnce,
    { quietPeriod: 0, closeTimeout: long },
    Effect.fnUntraced(function* (scene) {
      const { dial, drain, endsWell, listener } = scene
      const line = yield* dial({ hold: 100 })
      yield* hasRead(scene, 100)
      yield* drain
      yield* aMoment
      yield* line.ready
      const talk = yield* listener.speech.open(line)
      yield* endsCleanly(talk)
      yield* endsWell()
    })
  )
  row(
    "is closed after closeTimeout if it does not get on, not before",
    all,
    { quietPeriod: 0, closeTimeout: 400 },
    Effect.fnUntraced(function* (scene) {
      const { dial, drain, endsWell } = scene
      const { carrier } = yield* dial({ hold: 100 })
      yield* hasRead(scene, 100)
      const begun = now()
      yield* drain
      assert.isAtLeast((yield* closeOf(carrier)) - begun, 400)
      yield* endsWell()
    })
  )
  row(
    "is closed once its connection is older than quietPeriod if it has not begun, not before",
    all,
    { quietPeriod: 400, closeTimeout: long },
    Effect.fnUntraced(function* ({ dial, drain, endsWell }) {
      const opened = now()
      const { carrier } = yield* dial({ hold: 0 })
      yield* drain
      assert.isAtLeast((yield* closeOf(carrier)) - opened, 400)
      yield* endsWell()
    })
  )
  for (const when of ["before", "after"]) {
    row(
      `is gone by a reset ${when} the drain began, and nobody minds`,
      all,
      { quietPeriod: long, closeTimeout: long },
      Effect.fnUntraced(function* (scene) {
        const { dial, drain, endsWell } = scene
        const { carrier } = yield* dial({ hold: 100 })
        yield* hasRead(scene, 100)
        if (when === "before") reset(carrier)
        yield* drain
        if (when === "after") {
          yield* aMoment
          reset(carrier)
        }
        yield* endsWell()
      })
    )
  }
})

/** When a connection was closed. */
const closeOf = (socket: Socket): Effect.Effect<number> =>
  Effect.callback<number>((resume) => {
    if (socket.closed) resume(Effect.succeed(now()))
    else socket.once("close", () => resume(Effect.succeed(now())))
  })

const plain: ReadonlyArray<Key> = ["rawUpgrade", "adoptedWebSocket"]
const owns = (_: Listener, key: Key) => !plain.includes(key)
const notOurs = because("its listening socket is somebody else's, who goes on to accept", ...plain)

const refused = ({ unix }: Listener) => (unix === true ? "ENOENT" : "ECONNREFUSED")

theme("a peer that connects during the drain", {}, (row) => {
  row(
    "is refused, while there is work in flight",
    (listener, key) => finishes(listener) && owns(listener, key),
    { quietPeriod: long, closeTimeout: long },
    Effect.fnUntraced(function* (scene) {
      const { address, connect, drain, endsWell, entered, listener, stage } = scene
      const talk = yield* connect()
      talk.ask("last")
      yield* entered("last")
      yield* drain
      assert.strictEqual(yield* Peers.refusal(address), refused(listener))
      yield* aMoment
      assert.strictEqual(yield* Peers.refusal(address), refused(listener))
      stage.release()
      assert.strictEqual((yield* talk.answer).text, "last")
      talk.end()
      yield* endsWell()
    })
  )
  row(
    "is refused",
    (listener, key) => interrupts(listener) && owns(listener, key),
    {},
    Effect.fnUntraced(function* ({ address, drain, endsWell, listener }) {
      yield* drain
      assert.strictEqual(yield* Peers.refusal(address), refused(listener))
      yield* endsWell()
    })
  )
  row(
    "is refused, whatever layer the listener is in: beneath one whose work goes on",
    owns,
    { beneath: true },
    Effect.fnUntraced(function* ({ above, address, drain, endsWell, listener, program, server }) {
      const { stage, talk } = above!
      talk.ask("last")
      yield* stage.entered("last")
      yield* drain
      // At once: a port that is free somebody else may get.
      assert.strictEqual(yield* Peers.refusal(address), refused(listener))
      yield* aMoment
      assert.deepStrictEqual([program.isEnded(), server.listening], [false, false])
      stage.release()
      assert.strictEqual((yield* talk.answer).text, "last")
      yield* endsWell()
    }),
    ({ ways }) => ways.filter(({ supervised }) => supervised).slice(0, 1)
  )
  row(
    "is told to go as soon as it is adopted",
    (listener, key) => !owns(listener, key),
    { quietPeriod: long, closeTimeout: long },
    Effect.fnUntraced(function* ({ connect, drain, endsWell, entered, listener, stage }) {
      const early = yield* connect()
      early.ask("slow")
      yield* entered("slow")
      yield* drain
      const late = yield* connect()
      yield* endsCleanly(late)
      assert.deepStrictEqual(late.told(), listener.farewell.idle)
      stage.release()
      assert.strictEqual((yield* early.answer).text, "slow")
      yield* endsWell()
    }),
    ({ ways }) => ways.filter(({ supervised }) => supervised)
  )
})

/** What a worker saw of the connections that it opened. */
const volley = ({ address, listener }: Scene, count: number, pace: number) =>
  Effect.gen(function* () {
    const gate = new SharedArrayBuffer(4)
    const { ping } = listener.speech
    const input: Volley.Input = { address, tls: listener.tls, question: ping, answer: "pong", count, pace, gate }
    const thread = yield* Effect.acquireRelease(
      Effect.sync(() => new Worker(new URL("./support/volley.ts", import.meta.url), { workerData: input })),
      (thread) => Effect.promise(() => thread.terminate())
    )
    const message = Effect.callback<unknown>((resume) => {
      thread.once("message", (message) => resume(Effect.succeed(message)))
      thread.once("error", (error) => resume(Effect.die(error)))
    })
    yield* message
    return {
      // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread is not a window
      go: () => thread.postMessage("go"),
      /** Stands still until so many connections do. */
      stand: (count: number) => {
        const standing = new Int32Array(gate)
        for (let seen = 0; seen < count; seen = Atomics.load(standing, 0)) {
          assert.notStrictEqual(Atomics.wait(standing, 0, seen, 10_000), "timed-out")
        }
      },
      output: message as Effect.Effect<Volley.Output>
    }
  })

/** Let go without an answer, or refused an upgrade that it asked for too late: not reset. */
const isLetGo = (problem: string): boolean => problem.startsWith("closed without an answer")

/** What its peers have sent before it could be read may be that late. */
const letsGo = (listener: Listener): boolean => atOnce(listener) || listener.late !== undefined

theme(
  "connections in the accept queue when the drain begins",
  notOurs,
  (row) => {
    /** Nothing is accepted while this thread stands still, until all of them stand. */
    const queue = Effect.fnUntraced(function* (scene: Scene, count: number) {
      const { go, output, stand } = yield* volley(scene, count, count)
      go()
      stand(count)
      assert.lengthOf(acceptedBy(scene.server), 0)
      scene.program.begin()
      const seen = yield* output
      yield* scene.endsWell()
      return seen
    })
    row(
      "are all served",
      (listener) => !letsGo(listener),
      { quietPeriod: 3000, closeTimeout: long },
      Effect.fnUntraced(function* (scene) {
        assert.deepStrictEqual(yield* queue(scene, 100), { served: 100, refused: 0, problems: [] })
      })
    )
    row(
      "are all served or let go, and none is reset",
      letsGo,
      { quietPeriod: 3000, closeTimeout: long },
      Effect.fnUntraced(function* (scene) {
        const { problems, refused, served } = yield* queue(scene, 100)
        assert.deepStrictEqual(
          problems.filter((problem) => !isLetGo(problem)),
          []
        )
        assert.deepStrictEqual([refused, served + problems.length], [0, 100])
      })
    )
  },
  true
)

theme(
  "of 200 connections about the moment of the signal",
  notOurs,
  (row) => {
    /** What became of those that were accepted; the others were refused, or reset by the kernel as the queue closed. */
    const accepted = Effect.fnUntraced(function* (scene: Scene) {
      const { go, output } = yield* volley(scene, 200, 4)
      go()
      yield* until(() => acceptedBy(scene.server).length >= 40)
      scene.program.begin()
      const { problems, refused, served } = yield* output
      yield* scene.endsWell()
      const letGo = problems.filter(isLetGo).length
      assert.strictEqual(served + refused + problems.length, 200)
      return { accepted: acceptedBy(scene.server).length, served, letGo }
    })
    row(
      "each that is accepted is served whole",
      (listener) => !letsGo(listener),
      { quietPeriod: 3000, closeTimeout: long },
      Effect.fnUntraced(function* (scene) {
        const seen = yield* accepted(scene)
        assert.deepStrictEqual(seen, { ...seen, served: seen.accepted, letGo: 0 })
      })
    )
    row(
      "each that is accepted is served whole or let go",
      letsGo,
      { quietPeriod: 3000, closeTimeout: long },
      Effect.fnUntraced(function* (scene) {
        const { accepted: count, letGo, served } = yield* accepted(scene)
        assert.strictEqual(served + letGo, count)
      })
    )
  },
  true
)
