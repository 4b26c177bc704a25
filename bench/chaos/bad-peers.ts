/**
 * Peers that do not behave. They count nothing; what they do must not hurt the others, nor the end of the server.
 */
import { connect, type Socket } from "node:net"
import type * as Random from "./random.ts"

export const badPeers = [
  "resets in a response",
  "resets half a head",
  "resets an upload",
  "stalls before it speaks",
  "stalls in a head",
  "stalls in a body",
  "does not read",
  "floods requests",
  "floods connections",
  "sends garbage",
  "closes its half"
] as const
/** And two that the plan asks for by themselves: one waits for an answer that never comes, after the other something is thrown. */
export type BadPeer = (typeof badPeers)[number] | "hangs in a request" | "makes it throw"

/** Those whose request is in flight for as long as they like: only the deadline ends them, and that is an exit with 1. */
export const holdsOn: ReadonlySet<BadPeer> = new Set(["stalls in a body", "does not read"])

const head = (line: string, ...headers: ReadonlyArray<string>) =>
  [`${line} HTTP/1.1`, "Host: localhost", ...headers, "", ""].join("\r\n")

/**
 * Sets one upon the server at `port`. `ready` is called when what it does is under way, as far as it can know; what is returned
 * ends it.
 */
export const misbehave = (kind: BadPeer, port: number, random: Random.Random, ready: () => void): (() => void) => {
  const sockets = new Set<Socket>()
  let over = false
  const open = (): Socket => {
    const socket = connect({ host: "127.0.0.1", port, noDelay: true })
    sockets.add(socket)
    socket.on("error", () => {})
    socket.on("close", () => sockets.delete(socket))
    return socket
  }
  const again = (least: number, most: number, next: () => void) =>
    void setTimeout(() => over || next(), random.between(least, most)).unref()

  /** Opens, sends, resets a moment later, and begins anew. */
  const resets = (text: string): void => {
    const socket = open()
    socket.on("connect", () => {
      socket.write(text, ready)
      again(0, 20, () => socket.resetAndDestroy())
    })
    socket.on("close", () => again(5, 30, () => resets(text)))
  }
  const stalls = (text: string): Socket => {
    const socket = open()
    socket.on("connect", () => (text === "" ? ready() : socket.write(text, ready)))
    return socket
  }

  const kinds: { readonly [K in BadPeer]: () => void } = {
    "resets in a response": () => resets(head("GET /big")),
    "resets half a head": () => resets("GET /echo/half HTTP/1.1\r\nHost: lo"),
    "resets an upload": () => resets(`${head("POST /upload", "Content-Length: 100000")}${"x".repeat(5000)}`),
    "stalls before it speaks": () => void stalls("").resume(),
    "stalls in a head": () => void stalls("GET /echo/half HTTP/1.1\r\nHost: lo").resume(),
    "stalls in a body": () => void stalls(`${head("POST /upload", "Content-Length: 100000")}half`).resume(),
    "hangs in a request": () => void stalls(head("GET /never")).resume(),
    "makes it throw": () => void stalls(head("GET /throw", "Connection: close")).resume(),
    "does not read": () => {
      const socket = stalls(head("GET /big"))
      // It has begun to come, and is not taken.
      socket.once("readable", ready)
    },
    "floods requests": () => {
      const socket = open().resume()
      const batch = head("GET /echo/flood").repeat(50)
      const flood = () => void (over || socket.destroyed || socket.write(batch, () => setTimeout(flood, 5).unref()))
      socket.on("connect", () => {
        flood()
        ready()
      })
    },
    "floods connections": () => {
      const flood = () => {
        for (let index = 0; index < 20; index++) {
          const socket = open().resume()
          socket.on("connect", ready)
        }
        again(20, 60, flood)
      }
      flood()
    },
    "sends garbage": () => {
      const socket = open().resume()
      socket.on("connect", () =>
        socket.write(Buffer.from(Array.from({ length: 200 }, () => random.between(0, 255))), ready)
      )
      socket.on("close", () => again(10, 40, kinds["sends garbage"]))
    },
    "closes its half": () => {
      const socket = open().resume()
      socket.on("connect", () => socket.end(head("GET /echo/half"), ready))
      socket.on("close", () => again(10, 40, kinds["closes its half"]))
    }
  }
  kinds[kind]()
  return () => {
    over = true
    for (const socket of sockets) socket.destroy()
  }
}
