/**
 * What listens in this process, and what it has accepted: Node tells of both, so that a test needs no way into a listener
 * that keeps its server to itself.
 */
import { subscribe } from "node:diagnostics_channel"
import type { AddressInfo, Server, Socket } from "node:net"

const servers = new Set<Server>()
const sockets = new WeakMap<Server, Array<Socket>>()

subscribe("tracing:net.server.listen:asyncEnd", (message) => {
  const { server } = message as { readonly server: Server }
  servers.add(server)
  server.once("close", () => servers.delete(server))
})

subscribe("net.server.socket", (message) => {
  const { socket } = message as { readonly socket: Socket & { readonly server: Server } }
  const list = sockets.get(socket.server) ?? []
  sockets.set(socket.server, list)
  list.push(socket)
})

/** Who listens at a port or path. */
export const serverAt = (place: number | string): Server => {
  for (const server of servers) {
    const address = server.address() as AddressInfo | string | null
    if (address !== null && (typeof address === "string" ? address : address.port) === place) return server
  }
  throw new Error(`Nobody listens at ${place}`)
}

/** The sockets that a server has accepted, those that are gone included. Over TLS they are those of the network. */
export const acceptedBy = (server: Server): ReadonlyArray<Socket> => sockets.get(server) ?? []
