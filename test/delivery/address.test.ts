import { describe, expect, it } from 'vitest'
import { checkReceiverUrl, createAddressPolicy } from '../../src/delivery/address.ts'

/** S23: every way we know of to name an address that must not be told. */
const neverOrPrivate = [
  // loopback, in every spelling that a URL normalises
  'https://127.0.0.1/', 'https://2130706433/', 'https://0x7f.1/', 'https://0x7f000001/', 'https://0177.0.0.1/', 'https://127.1/', 'https://127.0.0.1./',
  'https://１２７.０.０.１/', 'https://127。0。0。1/', 'https://localhost/', 'https://localhost./', 'https://LOCALHOST/', 'https://a.localhost/',
  'https://[::1]/', 'https://[0:0:0:0:0:0:0:1]/', 'https://[::ffff:127.0.0.1]/', 'https://[::ffff:7f00:1]/', 'https://[0:0:0:0:0:ffff:7f00:0001]/',
  // unspecified
  'https://0.0.0.0/', 'https://0/', 'https://[::]/', 'https://[::ffff:0.0.0.0]/',
  // private, shared, special
  'https://10.0.0.1/', 'https://172.16.0.1/', 'https://172.31.255.255/', 'https://192.168.1.1/', 'https://100.64.0.1/', 'https://192.0.0.1/',
  'https://192.0.2.1/', 'https://198.18.0.1/', 'https://198.51.100.1/', 'https://203.0.113.1/', 'https://192.88.99.1/', 'https://240.0.0.1/',
  'https://255.255.255.255/', 'https://224.0.0.1/',
  // link-local and metadata
  'https://169.254.169.254/', 'https://169.254.170.2/', 'https://0xa9fea9fe/', 'https://100.100.100.200/', 'https://192.0.0.192/',
  'https://[fd00:ec2::254]/', 'https://[fe80::1]/', 'https://[::ffff:169.254.169.254]/', 'https://metadata.google.internal/', 'https://metadata/',
  // IPv6: unique local, site-local, multicast, documentation, discard, segment routing
  'https://[fc00::1]/', 'https://[fd12:3456::1]/', 'https://[fec0::1]/', 'https://[ff02::1]/', 'https://[2001:db8::1]/', 'https://[3fff::1]/',
  'https://[100::1]/', 'https://[5f00::1]/', 'https://[4000::1]/',
  // IPv6 that carries IPv4: NAT64, local NAT64, 6to4, Teredo, v4-compatible, SIIT, ISATAP
  'https://[64:ff9b::7f00:1]/', 'https://[64:ff9b::10.0.0.1]/', 'https://[64:ff9b::8.8.8.8]/', 'https://[64:ff9b:1::a00:1]/', 'https://[2002:7f00:1::]/',
  'https://[2002:808:808::1]/', 'https://[2001:0:4136:e378:8000:63bf:3fff:fdd2]/', 'https://[::10.0.0.1]/', 'https://[::ffff:0:a00:1]/',
  'https://[2600::5efe:a00:1]/', 'https://[2600::5efe:a9fe:a9fe]/', 'https://[2600::200:5efe:a9fe:a9fe]/',
]

const metadataEverywhere = [
  '169.254.169.254', '169.254.0.1', '100.100.100.200', '192.0.0.192', '0.0.0.0', '0.1.2.3', '255.255.255.255', '224.0.0.251', '::', 'fe80::1', 'fe80::1%eth0', 'ff02::1', 'fd00:ec2::254',
  '::ffff:169.254.169.254', '64:ff9b::a9fe:a9fe', '64:ff9b:1::a9fe:a9fe', '2002:a9fe:a9fe::1', '::a9fe:a9fe', '::ffff:0:a9fe:a9fe',
  // Teredo: the server's address plain, the client's inverted
  '2001:0:a9fe:a9fe::1', '2001:0:808:808:0:0:5601:5601',
]

describe('addresses that may be told', () => {
  it.each(neverOrPrivate)('S23: refuses %s at registration', (url) => {
    expect(() => checkReceiverUrl(url, [])).toThrow(/Invalid url/)
  })

  it.each([
    ['ftp://rp.example/', /only https/], ['file:///etc/passwd', /only https/], ['gopher://rp.example/', /only https/], ['javascript:alert(1)', /only https/],
    ['http://rp.example/', /plain http/], ['http://8.8.8.8/', /plain http/], ['https://user:secret@rp.example/', /credentials/], ['https://user@rp.example/', /credentials/],
    ['https://rp.example/#part', /fragment/], ['https://rp.example/#', /fragment/], ['rp.example/logout', /absolute/], ['', /absolute/], ['https://', /absolute/],
    ['https://rp.example:0/', /port 0/], [`https://rp.example/${'a'.repeat(2_000)}`, /characters/],
  ])('refuses %s', (url, why) => {
    expect(() => checkReceiverUrl(url, [])).toThrow(why)
  })

  it.each(['https://rp.example/logout', 'https://rp.example:8443/logout?tenant=a&b=c', 'https://8.8.8.8/', 'https://[2606:4700::1111]/', 'https://xn--bcher-kva.example/'])(
    'accepts %s', (url) => {
      expect(() => checkReceiverUrl(url, [])).not.toThrow()
    })

  it.each(metadataEverywhere)('never tells %s, even where the operator allows everything', (address) => {
    const policy = createAddressPolicy(['0.0.0.0/0', '::/0'])
    expect(policy.refusal(address, false)).toMatch(/never told/)
  })

  it('tells a private network that the operator allows, over plain http too, and no other', () => {
    const policy = createAddressPolicy(['10.1.0.0/16', 'fd12::/16'])
    expect(policy.refusal('10.1.2.3', true)).toBeNull()
    expect(policy.refusal('::ffff:10.1.2.3', true)).toBeNull()
    expect(policy.refusal('fd12::1', false)).toBeNull()
    expect(policy.refusal('10.2.0.1', false)).toMatch(/private/)
    expect(policy.refusal('127.0.0.1', false)).toMatch(/private/)
    expect(policy.refusal('8.8.8.8', true)).toMatch(/plain http/)
    expect(policy.refusal('8.8.8.8', false)).toBeNull()
  })

  it('accepts plain http for a name only where some network is allowed, and then checks the address when connecting', () => {
    expect(() => checkReceiverUrl('http://rp.internal/logout', ['10.0.0.0/8'])).not.toThrow()
    expect(() => checkReceiverUrl('http://127.0.0.1/logout', ['10.0.0.0/8'])).toThrow()
    expect(() => checkReceiverUrl('http://localhost/logout', ['127.0.0.0/8'])).not.toThrow()
  })

  it('refuses what is no address', () => {
    const policy = createAddressPolicy([])
    for (const text of ['', 'rp.example', '1.2.3', '1.2.3.4.5', '::g', '01.2.3.4']) expect(policy.refusal(text, false)).toBe('not an address')
  })

  it('does not start with a range that is none', () => {
    expect(() => createAddressPolicy(['10.0.0.0'])).toThrow()
    expect(() => createAddressPolicy(['office'])).toThrow()
  })
})
