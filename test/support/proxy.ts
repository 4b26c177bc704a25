/**
 * A TCP proxy that takes its time: everything, the end of a connection too, arrives so much later on the other side. As
 * if there were a long way between the clients and their server.
 */
import { type AddressInfo, connect, createServer, type Socket } from "node:net"

export interface Proxying {
  readonly port: number
  /** One way, in milliseconds. */
  readonly delay: number
  /** The server sees each client's own port, at another address. For Linux, where all of 127.0.0.0/8 is this machine. */
  readonly keepsPorts?: boolean | undefined
}

const { delay, keepsPorts = false, port } = JSON.parse(process.argv[2]!) as Proxying

const carry = (from: Socket, to: Socket): void => {
  const later = (f: () => void) => void setTimeout(f, delay)
  from.on("data", (chunk: Buffer) => later(() => to.write(chunk)))
  from.on("end", () => later(() => to.end()))
  from.on("error", () => later(() => to.resetAndDestroy()))
}

const server = createServer({ allowHalfOpen: true, noDelay: true }, (near) => {
  const from = keepsPorts ? { localAddress: "127.0.0.9", localPort: near.remotePort! } : {}
  const far = connect({ host: "127.0.0.1", port, allowHalfOpen: true, noDelay: true, ...from })
  carry(near, far)
  carry(far, near)
})

server.listen(0, "127.0.0.1", () => process.stdout.write(`port ${(server.address() as AddressInfo).port}\n`))
