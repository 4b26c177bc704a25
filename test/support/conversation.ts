/**
 * A client of a protocol of text: it says something, and waits for what it hears, over TCP, TLS or a Unix socket.
 */
import { Deferred, Effect, Exit, type Scope } from "effect"
import { connect, type NetConnectOpts, type Socket } from "node:net"
import { connect as connectTls } from "node:tls"

/** How a connection ended. */
export interface Closed {
  /** Everything that came. */
  readonly text: string
  /** Whether the server said that nothing more would come, before the end. */
  readonly ended: boolean
  /** The code of the error that ended it, as `ECONNRESET`. */
  readonly error: string | undefined
  readonly at: number
}

export interface Conversation {
  readonly say: (text: string) => void
  /** Completes with the match as soon as what came matches. Dies if the connection ends before. */
  readonly heard: (pattern: RegExp) => Effect.Effect<RegExpMatchArray>
  readonly isClosed: () => boolean
  readonly closed: Effect.Effect<Closed>
}

/** Opens a connection; with `ca` over TLS. */
export const converse = (
  where: NetConnectOpts,
  options: { readonly ca?: string } = {}
): Effect.Effect<Conversation, never, Scope.Scope> =>
  Effect.map(
    Effect.acquireRelease(
      Effect.sync(() => (options.ca === undefined ? connect(where) : connectTls({ ...where, ca: options.ca }))),
      (socket) => Effect.sync(() => socket.destroy())
    ),
    listen
  )

const listen = (socket: Socket): Conversation => {
  const closed = Deferred.makeUnsafe<Closed>()
  const waiting = new Set<() => void>()
  const look = () => {
    for (const see of Array.from(waiting)) see()
  }
  let text = ""
  let ended = false
  let error: string | undefined
  socket.setEncoding("utf8").on("data", (chunk: string) => {
    text += chunk
    look()
  })
  socket.on("end", () => {
    ended = true
  })
  socket.on("error", (cause: NodeJS.ErrnoException) => {
    error = cause.code ?? cause.message
  })
  socket.on("close", () => {
    Deferred.doneUnsafe(closed, Exit.succeed({ text, ended, error, at: performance.now() }))
    look()
  })
  return {
    say: (text) => void socket.write(text),
    heard: (pattern) =>
      Effect.callback<RegExpMatchArray>((resume) => {
        const see = () => {
          const match = text.match(pattern)
          if (match !== null) resume(Effect.succeed(match))
          else if (Deferred.isDoneUnsafe(closed)) {
            resume(Effect.die(new Error(`The connection ended (${error}) without ${pattern}. It brought:\n${text}`)))
          } else return
          waiting.delete(see)
        }
        waiting.add(see)
        see()
        return Effect.sync(() => waiting.delete(see))
      }),
    isClosed: () => Deferred.isDoneUnsafe(closed),
    closed: Deferred.await(closed)
  }
}
