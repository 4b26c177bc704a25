/**
 * What a peer sends, line by line.
 */
import { Effect, type Scope } from "effect"
import { Socket } from "effect/socket"

/**
 * Gives the next line each time that it is run. It may be interrupted, to do something else instead: what has come of a
 * line by then is kept for the next time.
 */
export const readLines = (
  socket: Socket.Socket
): Effect.Effect<Effect.Effect<string, Socket.SocketError>, Socket.SocketError, Scope.Scope> =>
  Effect.map(Socket.readerString(socket), (pull) => {
    let text = ""
    const next: Effect.Effect<string, Socket.SocketError> = Effect.suspend(() => {
      const end = text.indexOf("\n")
      if (end < 0) {
        return Effect.flatMap(pull, (chunks) => {
          text += chunks.join("")
          return next
        })
      }
      const line = text.slice(0, end)
      text = text.slice(end + 1)
      return Effect.succeed(line)
    })
    return next
  })
