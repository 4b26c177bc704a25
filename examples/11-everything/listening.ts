import { Effect } from "effect"
import { NetAddress } from "effect/net"
import { SocketServer } from "effect/socket"

/** Says where a socket server listens. A Unix socket has a scheme of its own. */
export const logAddress = (scheme: string) =>
  Effect.gen(function* () {
    const { address } = yield* SocketServer.SocketServer
    yield* Effect.log(`Listening on ${NetAddress.formatUrlUnsafe(address, scheme)}`)
  })
