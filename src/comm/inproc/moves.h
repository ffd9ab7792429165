// How the data of each inproc collective is moved; see Group::Move. What a rank's share is follows from the contract in
// comm/communicator.h, except in all_reduce: there each rank reduces a range of the elements for all.
#pragma once

#include "comm/inproc/group.h"

namespace sluice::moves {

void gather(const Group& group, const Group::Posts& posts, int first, int last, Mover& mover);
void reduce_parts(const Group& group, const Group::Posts& posts, int first, int last, Mover& mover);
void reduce_all(const Group& group, const Group::Posts& posts, int first, int last, Mover& mover);
void exchange_rows(const Group& group, const Group::Posts& posts, int first, int last, Mover& mover);
void spread(const Group& group, const Group::Posts& posts, int first, int last, Mover& mover);
void nothing(const Group& group, const Group::Posts& posts, int first, int last, Mover& mover);

}  // namespace sluice::moves
