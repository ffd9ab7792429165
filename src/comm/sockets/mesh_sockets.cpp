#include "comm/sockets/mesh_sockets.h"

#include <fmt/format.h>

#include <cerrno>
#include <system_error>
#include <utility>

#include "comm/job.h"

namespace sluice {

namespace {

SocketAddress address_of(const MeshPlan& plan, const Contact& contact) {
  if (const auto own = SocketAddress::parse(contact.address, contact.port)) return own->on_network_of(plan.zero);
  return plan.zero.at(contact.port);
}

Descriptor connected(const MeshPlan& plan, const Contact& contact, bool bulk) {
  Descriptor socket(-1);
  // Its name is random: what answers to it is this process on this machine. Where nothing does, it is on another.
  int code = plan.local ? connect_locally(contact.local, plan.deadline, socket) : ECONNREFUSED;
  const bool local = code == 0;
  const SocketAddress address = address_of(plan, contact);
  if (!local) code = connect_to(address, plan.deadline, socket);
  const Pass pass{.token = plan.directory.token, .process = plan.process, .bulk = bulk};
  const auto members = [&](int process) { return named(plan.directory.contacts[static_cast<size_t>(process)].member); };
  if (code == 0 && !send_letter(socket.number(), {LetterKind::pass, to_text(pass)}, plan.deadline)) code = ECONNRESET;
  if (code != 0) {
    const std::string where = local ? "on this machine" : "at " + address.str();
    throw runtime_failure("{} cannot reach {} {}: {}", members(plan.process), members(contact.member.process), where,
                          std::generic_category().message(code))
        .advise(
            "processes connect to each other at ports that the system chooses: the hosts must let connections of "
            "each other pass at all ports from 1024 on");
  }
  return socket;
}

// Takes what a visitor has come for; false where it has no place here.
bool place(const MeshPlan& plan, Reception::Visitor& visitor, std::vector<SocketWire::Sockets>& sockets) {
  const std::optional<Pass> pass =
      visitor.letter.kind == LetterKind::pass ? pass_of(visitor.letter.text) : std::nullopt;
  if (!pass || pass->token != plan.directory.token || pass->process <= plan.process ||
      pass->process >= static_cast<int>(sockets.size())) {
    return false;
  }
  SocketWire::Sockets& pair = sockets[static_cast<size_t>(pass->process)];
  Descriptor& socket = pass->bulk ? pair.bulk : pair.packets;
  if (socket.number() >= 0) return false;
  socket = visitor.who.take_socket();
  return true;
}

// A process that joins when all have: it belongs to another job, or was started twice.
void send_away(const MeshPlan& plan, const Reception::Visitor& visitor) {
  const Error error =
      user_error("the job that was joined has all its {} processes already", plan.directory.contacts.size())
          .advise("each job needs a port of its own (MASTER_PORT), and each process of it a number of its own (RANK)");
  send_letter(visitor.who.number(), {LetterKind::refusal, to_text(error)}, deadline_in(1));
}

}  // namespace

std::vector<SocketWire::Sockets> connect_mesh(const MeshPlan& plan, Reception& reception) {
  const size_t count = plan.directory.contacts.size();
  std::vector<SocketWire::Sockets> sockets(count);
  const auto self = static_cast<size_t>(plan.process);
  for (size_t p = 0; p < self; ++p) {
    for (const bool bulk : {false, true}) {
      (bulk ? sockets[p].bulk : sockets[p].packets) = connected(plan, plan.directory.contacts[p], bulk);
    }
  }
  for (size_t missing = 2 * (count - self - 1); missing > 0;) {
    Reception::News news = reception.next(plan.deadline, plan.watched());
    if (news.watched) {
      plan.look(*news.watched);
    } else if (news.visitor) {
      if (place(plan, *news.visitor, sockets)) {
        --missing;
      } else if (news.visitor->letter.kind == LetterKind::join) {
        send_away(plan, *news.visitor);
      } else {
        reception.ignored(news.visitor->who);
      }
    } else {
      std::vector<int> absent;
      for (size_t p = self + 1; p < count; ++p) {
        if (sockets[p].packets.number() < 0 || sockets[p].bulk.number() < 0) absent.push_back(static_cast<int>(p));
      }
      throw runtime_failure("{} {} not connected to {} in time", format_processes(absent),
                            absent.size() == 1 ? "has" : "have", named(plan.directory.contacts[self].member))
          .advise("look at what those processes say");
    }
  }
  for (size_t p = 0; p < count; ++p) {
    if (p == self) continue;
    prepare_for_packets(sockets[p].packets.number());
    prepare_for_bulk(sockets[p].bulk.number());
  }
  return sockets;
}

std::string named(const Member& member) {
  return fmt::format("process {} ({})", member.process, member.str());
}

std::string format_processes(const std::vector<int>& processes) {
  const std::string ranks = format_ranks(processes);
  return (processes.size() == 1 ? "process" : "processes") + ranks.substr(ranks.find(' '));
}

}  // namespace sluice
