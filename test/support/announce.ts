/**
 * Preloaded into a program with `--import`: prints the address of each server as soon as it listens, since not every program
 * says so itself.
 */
import { type AddressInfo, Server } from "node:net"

const listen = Server.prototype.listen as (...args: Array<unknown>) => Server

Server.prototype.listen = function (this: Server, ...args: Array<unknown>) {
  this.once("listening", () => {
    const address = this.address() as AddressInfo | string
    console.log(`Announced: ${typeof address === "string" ? address : address.port}`)
  })
  return listen.apply(this, args)
}
