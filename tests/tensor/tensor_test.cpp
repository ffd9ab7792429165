#include "tensor/tensor.h"

#include <gtest/gtest.h>

#include <numeric>
#include <vector>

namespace sluice {
namespace {

TEST(Shape, CountsElements) {
  EXPECT_EQ(Shape().numel(), 0);
  EXPECT_EQ(Shape().rank(), 0);
  EXPECT_EQ((Shape{7}.numel()), 7);
  EXPECT_EQ((Shape{7}.inner()), 1);
  EXPECT_EQ((Shape{2, 3, 4, 5}.numel()), 120);
  EXPECT_EQ((Shape{2, 3, 4, 5}.inner()), 60);
  EXPECT_EQ((Shape{0, 3}.numel()), 0);
  EXPECT_EQ((Shape{1 << 20, 1 << 20, 16}.numel()), int64_t{1} << 44);
  EXPECT_EQ((Shape{3, 4}.str()), "[3, 4]");
  EXPECT_EQ(Shape().str(), "[]");
  EXPECT_EQ((Shape{3, 4}), (Shape{3, 4}));
  EXPECT_NE((Shape{3}), (Shape{3, 1}));
}

TEST(Shape, RefusesNegativeAndTooMany) {
  EXPECT_THROW((Shape{3, -1}), Error);
  EXPECT_THROW((Shape{1, 1, 1, 1, 1}), Error);
}

class Views : public testing::Test {
 protected:
  Views() { std::iota(data.begin(), data.end(), 0.0F); }
  std::vector<float> data = std::vector<float>(24);
  Tensor matrix = tensor_of(data.data(), {4, 6});
};

TEST_F(Views, RowsAndColumns) {
  const Tensor rows = matrix.rows(1, 2);
  EXPECT_EQ(rows.shape(), (Shape{2, 6}));
  EXPECT_EQ(rows.data<float>()[0], 6);
  EXPECT_TRUE(rows.dense());
  const Tensor cols = matrix.cols(2, 3);
  EXPECT_EQ(cols.shape(), (Shape{4, 3}));
  EXPECT_EQ(cols.stride(), 6);
  EXPECT_FALSE(cols.dense());
  EXPECT_EQ(cols.data<float>()[2 * cols.stride() + 1], 15);
  EXPECT_EQ(cols.rows(3, 1).data<float>()[0], 20);
  EXPECT_TRUE(cols.rows(3, 1).dense());  // one row has no gaps
  EXPECT_EQ(matrix.rows(4, 0).numel(), 0);
  EXPECT_EQ(matrix.bytes(), 96U);
}

TEST_F(Views, SplitKeepsTheStride) {
  const Tensor heads = matrix.cols(2, 4).split_cols(2, 2);
  EXPECT_EQ(heads.shape(), (Shape{4, 2, 2}));
  EXPECT_EQ(heads.stride(), 6);
  EXPECT_EQ(heads.data<float>()[heads.stride() + 3], 11);
  EXPECT_EQ(heads.rows(1, 3).data<float>()[0], 8);
}

TEST_F(Views, ReshapeOnlyIfDense) {
  const Tensor flat = matrix.view({24});
  EXPECT_EQ(flat.data<float>()[23], 23);
  EXPECT_EQ(matrix.view({2, 3, 4}).stride(), 12);
  EXPECT_THROW(matrix.cols(0, 3).view({12}), Error);
  EXPECT_THROW(matrix.view({23}), Error);
}

TEST_F(Views, OutOfRangeIsRefused) {
  EXPECT_THROW(matrix.rows(3, 2), Error);
  EXPECT_THROW(matrix.rows(-1, 2), Error);
  EXPECT_THROW(matrix.cols(5, 2), Error);
  EXPECT_THROW(matrix.cols(0, -1), Error);
  EXPECT_THROW(matrix.split_cols(4, 2), Error);
  EXPECT_THROW(matrix.view({4, 6, 1}).cols(0, 1), Error);
  EXPECT_THROW(matrix.data<double>(), Error);
}

TEST(Tensor, UndefinedAndEmpty) {
  const Tensor none;
  EXPECT_FALSE(none);
  EXPECT_EQ(none.numel(), 0);
  EXPECT_EQ(none.bytes(), 0U);
  EXPECT_EQ(none.rank(), 0);
  EXPECT_EQ(none.str(), "f32[]");
  const Tensor empty(nullptr, {0, 5}, DType::bf16);
  EXPECT_EQ(empty.rows(0, 0).numel(), 0);
  EXPECT_EQ(empty.str(), "bf16[0, 5]");
}

}  // namespace
}  // namespace sluice
